// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The keys that files of grouped-query decoders have in common: config.json, and the metadata of GGUF. An architecture
// reads these, then its own.
#pragma once

#include "model/config_reader.h"

namespace tandem {

// Sizes, norms, rotary embedding, the tied head, end tokens; every layer dense. head_dim is hidden_size over heads
// where the file has none. Refuses biases, other activations and quantised files.
ModelConfig read_decoder_config(const ConfigReader& config);

// The same from GGUF metadata, whose keys begin with the architecture. The vocabulary is counted in the embedding; a
// file without output.weight has a tied head; rope_freqs.weight divides the rotary frequencies.
ModelConfig read_decoder_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config,
                                     const std::string& architecture);

// The vocabulary of a GGUF file: the rows of its embedding.
std::int32_t read_gguf_vocab(const Checkpoint& checkpoint, const ConfigReader& config);

// rope_theta and rope_scaling, or both in rope_parameters as newer files have them: none, default, llama3 or yarn.
RopeConfig read_rope_config(const ConfigReader& config, std::int32_t dim);

// The yarn rule of a scaling object. The magnitude is the file's attention_factor or mscale over mscale_all_dim, and
// 0.1 ln factor + 1 unless it says so.
void read_yarn(const ConfigReader& scaling, RopeConfig& rope);
// What a scaling of this factor and mscale does to sine and cosine.
double yarn_magnitude(double factor, double mscale);

// Which layers are routed in files of the Step family: moe_layers_enum is a comma-separated string in published files
// and a list in others; without it all layers but the first are.
std::vector<bool> read_moe_layers_enum(const ConfigReader& config, std::int32_t layers);

}  // namespace tandem
