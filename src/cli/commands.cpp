// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/command.h"

#include <string_view>

namespace tandem {

namespace {

std::vector<Subcommand> measurements() {
  return {
      {"bench model", "prefill and decode speed of a whole model",
       "One line per layout, phase and batch: tokens/s, bytes moved by all operators per second, and their fraction of "
       "what\n"
       "this machine can read from memory.",
       declare_bench_model},
      {"bench grammar", "what answers in a grammar cost with a model's vocabulary",
       "One line per grammar: milliseconds to compile it, microseconds to make each token's mask and to take the "
       "token.\n"
       "  tandem bench grammar --model model.gguf\n  tandem bench grammar --model model.gguf --schema order.json",
       declare_bench_grammar},
      {"bench hand-over", "how long a hand-over takes between two processes of this machine",
       "One way, median, by transport and size: the message alone; with the frame's checksum made and checked; that "
       "sealed\n"
       "(link.encrypt); and what "
       "ucx_perftest (Debian's ucx-utils) says of UCX alone where it is installed. ratio: message over ucx_perftest.\n"
       "  tandem bench hand-over --transports tcp --kib 8,2048",
       declare_bench_hand_over},
      {"bench kernels", "single kernels or operators, beside what the machine could do at best",
       "One line per kernel and shape: time, bytes and FLOPs per second as fractions of what the same run measured. "
       "Of a GPU\n"
       "the kernels and their relative error against f64; of the processor the operators of a model while it works.\n"
       "  tandem bench kernels --device cuda --only mfa\n"
       "  tandem bench kernels --device cuda --stages --json > h200.jsonl\n"
       "  tandem bench kernels --device cpu --model model.gguf --batch 1,16",
       declare_bench_kernels},
      {"bench layout", "what --layout auto measures and takes", "", declare_bench_layout},
      {"bench load", "how fast a model is loaded, and the most memory that takes",
       "Per run a line for files that come from the disk and one for files in memory: how fast they can be read, how "
       "fast the\n"
       "model was loaded, and the peak of resident memory over the bytes of its weights as stored.\n"
       "  tandem bench load --model folder --layout local",
       declare_bench_load},
      {"bench machine", "what this machine's memory and arithmetic can do, for plans",
       "Of a GPU where there is a usable one, else of the processor. With --toml it prints a hardware file, which "
       "tandem\n"
       "plan takes wherever it takes a name; the price and the network are yours to say.\n"
       "Examples:\n"
       "  tandem bench machine\n"
       "  tandem bench machine --toml --usd-per-hour 2.1 --network-gbps 400 > h200.toml",
       declare_bench_machine},
      {"bench serve", "how fast a running server answers: any with OpenAI's interface",
       "Time to the first token, between pieces, per further token, end to end; throughput, and goodput under limits.\n"
       "  tandem bench serve --concurrency 16 --requests 200\n"
       "  tandem bench serve --rate 4 --input-tokens 64:512 --first-token-ms-max 500 --per-token-ms-max 50 --plot "
       "load.svg",
       declare_bench_serve},
      {"bench slice", "one attention GPU and one FFN GPU of a deployment of Step-3, at full size",
       "Random FP8 weights of all 61 layers, a full FP8 cache, hand-overs between two GPUs; each side alone and both "
       "together,\n"
       "beside what the GPU could do at best, and what the deployment would make per GPU.\n"
       "  tandem bench slice --deploy 2A2F --context 4096 --tpot-ms 50\n"
       "  tandem bench slice --deploy 2A2F,3A2F --rows 200 --routing zipf:0.5\n"
       "  tandem bench slice --rows 104 --trace slice.json --link-us 5 --link-gbps 400\n"
       "  tandem bench slice --deploy 2A2F --layout ep16,ep24",
       declare_bench_slice},
      {"bench vision", "how fast a model's vision tower sees pictures",
       "A line for the whole of a picture and one for a crop: time from pixels to rows, and FLOPs per second beside "
       "what the\n"
       "machine could do at best, a GPU in BF16 and a processor in f32. Only the tower is loaded.\n"
       "  tandem make-checkpoint folder --like step3_vl --layers 1 --vocab 32000\n"
       "  tandem bench vision --model folder --device cuda --operators",
       declare_bench_vision},
  };
}

std::vector<Subcommand> all_but_measurements() {
  return {
      {"chat", "a conversation in the terminal",
       "In the conversation: /help lists its commands, Ctrl-C stops an answer, Ctrl-D leaves.\n"
       "Without a terminal on standard input one prompt is read from it and one answer printed:\n"
       "  echo 'What is the capital of France?' | tandem chat --model model.gguf",
       declare_chat},
      {"generate", "prompts in, completions out, for scripts",
       "One JSON object per answer: id, text, finish_reason, usage, and an error in place of these when there is one.\n"
       "Lines of --jsonl are objects with prompt, messages or prompt_ids, an id of any kind, and any of max_tokens, "
       "stop,\n"
       "temperature, top_p, top_k, min_p, seed, repetition_penalty, presence_penalty, frequency_penalty, logprobs, "
       "logit_bias,\n"
       "and one of json_schema, regex, choice and grammar: what the answer has to be.\n"
       "--selfcheck ends with status 1 when an operator is further from the reference than its limit.\n"
       "  tandem generate --model model.gguf --text 'Once upon a time'\n"
       "  tandem generate --model model.gguf --jsonl requests.jsonl --temperature 0.7 > answers.jsonl",
       declare_generate},
      {"serve", "an OpenAI-compatible server",
       "Flags, their environment variables (--port is TANDEM_PORT) and the keys of the TOML file of --config are the "
       "same.\n"
       "docs/serving.md lists routes, fields, limits and metrics.\n"
       "With a deployment file it is the front of that deployment, whose workers run as processes.\n"
       "  tandem serve --model model.gguf --port 8000\n  tandem serve fleet.toml",
       declare_serve},
      {"attention", "an attention worker of a deployment, as a process",
       "Loads its share of the weights and waits for the front (tandem serve FILE). docs/deploying.md tells more.\n"
       "  tandem attention fleet.toml --rank 0",
       declare_attention},
      {"ffn", "an FFN worker of a deployment, as a process",
       "Loads its experts and waits for the front. Ranks count attention workers first.\n"
       "  tandem ffn fleet.toml --rank 1",
       declare_ffn},
      {"up", "all processes of a deployment on this machine, until Ctrl-C",
       "Shows what each says, who is ready, and how one ended; then all others end too, unless --restart.\n"
       "  tandem up fleet.toml\n"
       "  tandem up --workers-only fleet.toml &\n  tandem generate --deployment fleet.toml --text 'Once upon a time'",
       declare_up},
      {"inspect", "what is in a checkpoint, whether it is supported, what memory it takes",
       "A config.json without weights is enough to count parameters and memory, in bf16 and in fp8.\n"
       "  tandem inspect model.gguf\n  tandem inspect --layout 2A2F folder/config.json\n  tandem inspect --json "
       "folder/with/config.json | jq .parts",
       declare_inspect},
      {"verify", "a checkpoint's recorded expectations, checked here; the verdict is the exit status",
       "Per prompt: largest and rms logit error, expert choices and greedy tokens that agree. KV in f32 is held to the "
       "f32\n"
       "limits of the recording, KV in bf16 to the bf16 limits.\n"
       "  tandem verify tests/goldens/step3_text_bf16 --kv-dtype f32 --layout 2A2F",
       declare_verify},
      {"make-checkpoint", "a checkpoint of random weights, of any size, shaped like a published model",
       "The folder has config.json, weights under the published names and types, and a tokenizer: every command takes "
       "it.\n"
       "  tandem make-checkpoint /tmp/step3 --like step3_fp8 --gigabytes 2\n"
       "  tandem make-checkpoint /tmp/three-layers --like step3 --layers 3 --set moe_layers_enum=1,2\n"
       "  tandem make-checkpoint /tmp/copy --like folder/config.json --scale 0.5",
       declare_make_checkpoint},
      {"completion", "a script that teaches bash, zsh or fish the words of this program",
       "  source <(tandem completion bash)", declare_completion},
  };
}

std::vector<Subcommand> keys_and_control() {
  return {
      {"ctl status", "who takes part in a running deployment, and what each does",
       "Of its front, which needs [front] control_port in the file. Times are those of a step so far.\n"
       "  tandem ctl status fleet.toml\n  tandem ctl status fleet.toml --json | jq .epoch",
       declare_ctl_status},
      {"ctl drain", "a worker gets no more to do, and can be stopped, without losing a stream",
       "An attention worker's requests go to the others with their KV and go on with the same tokens; an FFN worker's "
       "seat\n"
       "goes to a replica. Returns when that is done.\n"
       "  tandem ctl drain fleet.toml 1",
       declare_ctl_drain},
      {"ctl add", "a worker that was drained takes part again", "  tandem ctl add fleet.toml 1", declare_ctl_add},
      {"simulate", "a deployment on a virtual clock and a network that fails: no token may be lost, seed by seed",
       "The front's, workers' and recovery's own code, a tiny model, and from each seed another story of killed, "
       "paused "
       "and\n"
       "cut off processes, lost and stale messages. Status 1 when a token was lost, doubled or altered, a request "
       "waits "
       "for\n"
       "ever, or blocks do not add up; a seed that failed is printed with all that happened, and happens again alike.\n"
       "  tandem simulate --seeds 1000\n  tandem simulate --seeds 1 --first-seed 42 --log",
       declare_simulate},
      {"keys secret", "a secret that all processes of a deployment share",
       "32 random bytes in a file for its owner alone: copy it to every host, over a way that you trust.\n"
       "  tandem keys secret /etc/tandem/secret",
       declare_keys_secret},
      {"keys certificates", "an authority for a deployment, and a certificate for each of its hosts",
       "Run again with the same folder it signs for more hosts. Who has a certificate of the authority can be a "
       "front.\n"
       "  tandem keys certificates fleet-keys a1.example a2.example f1.example front.example",
       declare_keys_certificates},
  };
}

std::vector<Subcommand> plans() {
  return {
      {"plan cost",
       "what decoding costs by model, hardware and context: the tables of the Step-3 paper for any of them",
       "Per token: bytes of KV, FLOPs of attention, projections and FFN; USD of a million tokens, and the cheapest "
       "accelerator\n"
       "for each half. docs/planning.md explains the theory.\n"
       "  tandem plan cost\n"
       "  tandem plan cost --model step3,folder/config.json --hardware h20,mine.toml --context 4K,128K --format json\n"
       "  tandem plan cost --format svg --output cost.svg",
       declare_plan_cost},
      {"plan deploy", "how many attention and FFN servers a model needs for a time per token and a load",
       "What was chosen, the time of every stage, the no-bubble condition, memory, link, price, what keeps it from "
       "being "
       "better;\n"
       "other times per token and other contexts beside. Status 1 when there is no plan, with the nearest that there "
       "is.\n"
       "  tandem plan deploy --model step3 --context 8K --gpus-a h20 --gpus-f h800 --toml fleet.toml\n"
       "  tandem plan deploy --load 50 --input-tokens 512:4096 --output-tokens 200:800 --kernels-f h800.jsonl",
       declare_plan_deploy},
      {"plan check", "whether a deployment file holds together and keeps what it was planned for",
       "The verdict is the exit status.\n  tandem plan check fleet.toml", declare_plan_check},
      {"plan sparsity", "how sparse a MoE may be before its experts' traffic is more than a link carries",
       "The smallest share of active experts by accelerator, what each model has, and what it would have to change.\n"
       "  tandem plan sparsity --model deepseek_v3 --hardware h800 --network-efficiency 0.8",
       declare_plan_sparsity},
  };
}

}  // namespace

const std::vector<Subcommand>& commands() {
  static const std::vector<Subcommand> table = [] {
    std::vector<Subcommand> all = all_but_measurements();
    for (const Subcommand& command : keys_and_control()) all.insert(all.end() - 1, command);
    for (const Subcommand& command : plans()) all.insert(all.end() - 1, command);
    for (const Subcommand& command : measurements()) all.insert(all.end() - 1, command);
    return all;
  }();
  return table;
}

const char* parent_summary(const char* name) {
  if (std::string_view(name) == "plan")
    return "what hardware a model needs and what it costs; each is a command of its own";
  if (std::string_view(name) == "ctl") return "a running deployment: who takes part, and who is to";
  if (std::string_view(name) == "keys") return "what the processes of a deployment know each other by";
  return "measurements; each is a command of its own";
}

}  // namespace tandem
