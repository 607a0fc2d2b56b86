// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/pictures.h"

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/format.h"
#include "session/data_url.h"

namespace tandem {

std::shared_ptr<const PictureToSee> open_picture(std::string_view bytes, const PictureRules& rules) {
  auto picture = std::make_shared<PictureToSee>();
  picture->picture = decode_picture(bytes, rules.file);
  picture->digest = content_digest(bytes);
  picture->plan = plan_crops(picture->picture.size);
  check_crops(picture->plan, rules.crops);
  return picture;
}

std::shared_ptr<const PictureToSee> open_picture_file(const std::string& path, const PictureRules& rules) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, format("{}: cannot be read", path));
  std::string bytes(rules.file.bytes_max + 1, '\0');  // one more shows that there are more
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  try {
    return open_picture(bytes, rules);
  } catch (const Error& error) {
    throw Error(error.code(), format("{}: {}", path, error.message()));
  }
}

std::shared_ptr<const PictureToSee> open_picture_url(const OrderedJson& image_url, const PictureRules& rules,
                                                     const RemoteFetch& fetch) {
  const OrderedJson* url = &image_url;
  if (image_url.is_object() && image_url.contains("url")) url = &image_url["url"];
  if (!url->is_string()) throw Error(ErrorCode::kInvalidArgument, R"(image_url must be {"url": TEXT})");
  const auto& text = url->get_ref<const std::string&>();
  if (!is_data_url(text) && fetch) return open_picture(fetch(text, rules.file.bytes_max), rules);
  if (!is_data_url(text))
    throw Error(ErrorCode::kInvalidArgument,
                "remote pictures are not fetched: send a data URL (data:image/…;base64,…)");
  return open_picture(read_data_url(text, rules.file.bytes_max), rules);
}

void add_picture(Pictures& pictures, std::shared_ptr<const PictureToSee> picture, const PictureRules& rules) {
  if (std::ssize(pictures) >= rules.count_max)
    throw Error(ErrorCode::kInvalidArgument, format("more than {} pictures in one prompt", rules.count_max));
  std::int64_t pixels = 0;
  pictures.push_back(std::move(picture));
  for (const auto& one : pictures) pixels += std::ssize(one->picture.rgb) / 3;
  if (pixels > rules.pixels_max)
    throw Error(ErrorCode::kInvalidArgument,
                format("the prompt's pictures have {} pixels together, limit is {}", pixels, rules.pixels_max));
}

Pictures take_pictures(OrderedJson& messages, const PictureRules& rules, const PictureOpener& open) {
  Pictures pictures;
  if (!messages.is_array()) return pictures;
  for (OrderedJson& message : messages) {
    if (!message.is_object() || !message.contains("content") || !message["content"].is_array()) continue;
    for (OrderedJson& part : message["content"]) {
      const bool shows =
          part.is_object() && part.contains("type") && (part["type"] == "image" || part["type"] == "image_url");
      if (!shows) continue;
      add_picture(pictures, open(part), rules);
      part = {{"type", "image"}};
    }
  }
  return pictures;
}

PictureTokens find_picture_tokens(const Tokenizer& tokenizer, const VisionConfig& vision) {
  const auto id = [&](const std::string& spelling) {
    const std::optional<std::int32_t> found = tokenizer.find_token(spelling);
    if (!found)
      throw Error(ErrorCode::kInvalidData, format("the tokenizer has no token {}, which pictures need", spelling));
    return *found;
  };
  PictureTokens tokens;
  tokens.row = id(vision.patch_token);
  if (tokens.row != vision.image_token)
    throw Error(ErrorCode::kInvalidData, format("{} is token {}, config.json says {} (image_token_id)",
                                                vision.patch_token, tokens.row, vision.image_token));
  tokens.whole_begin = id(vision.start_token);
  tokens.whole_end = id(vision.end_token);
  tokens.crop_begin = id("<patch_start>");
  tokens.crop_end = id("<patch_end>");
  tokens.crop_line = id("<patch_newline>");
  tokens.whole_rows = vision.whole_tokens;
  tokens.crop_rows = vision.crop_tokens;
  return tokens;
}

namespace {

// One picture's tokens at the end of a prompt.
class Placing {
 public:
  Placing(PicturePrompt& prompt, std::shared_ptr<const PictureToSee> picture, const PictureTokens& tokens)
      : ids_(prompt.ids), placed_(prompt.pictures.emplace_back()), tokens_(tokens) {
    placed_.picture = std::move(picture);
  }

  void run() {
    const CropPlan& plan = placed_.picture->plan;
    for (std::int32_t row = 0; row < plan.rows; ++row) {
      for (std::int32_t column = 0; column < plan.columns; ++column) {
        ids_.push_back(tokens_.crop_begin);
        rows(tokens_.crop_rows);
        ids_.push_back(tokens_.crop_end);
      }
      if (row + 1 < plan.rows) ids_.push_back(tokens_.crop_line);
    }
    ids_.push_back(tokens_.whole_begin);
    rows(tokens_.whole_rows);
    ids_.push_back(tokens_.whole_end);
  }

 private:
  void rows(std::int64_t count) {
    placed_.places.push_back({std::ssize(ids_), count, next_row_});
    ids_.insert(ids_.end(), static_cast<std::size_t>(count), tokens_.row);
    next_row_ += count;
  }

  std::vector<std::int32_t>& ids_;
  PlacedPicture& placed_;
  const PictureTokens& tokens_;
  std::int64_t next_row_ = 0;
};

}  // namespace

PicturePrompt expand_pictures(const std::vector<std::int32_t>& ids, const Pictures& pictures,
                              const PictureTokens& tokens) {
  if (const auto places = std::ranges::count(ids, tokens.row); places != std::ssize(pictures))
    throw Error(ErrorCode::kInvalidArgument,
                format("the prompt has {} placeholders for pictures and {} pictures", places, pictures.size()));
  PicturePrompt prompt;
  std::size_t next = 0;
  for (const std::int32_t id : ids) {
    if (id == tokens.row)
      Placing(prompt, pictures[next++], tokens).run();
    else
      prompt.ids.push_back(id);
  }
  return prompt;
}

}  // namespace tandem
