// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Pictures in a prompt: from a file's bytes to a place among the tokens. A template leaves one placeholder for each
// picture; it grows to the tokens that frame the picture's crops and its whole, with one placeholder for each row that
// the vision tower will give.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/vision/vision_worker.h"
#include "text/tokenizer.h"

namespace tandem {

struct PictureRules {
  PictureLimits file;
  CropLimits crops;
  // Of one prompt.
  std::int64_t count_max = 32;
  std::int64_t pixels_max = 120'000'000;
};

// Decodes and plans. Throws Error with the reason; nothing is kept of a picture that is refused.
std::shared_ptr<const PictureToSee> open_picture(std::string_view bytes, const PictureRules& rules = {});

// The same of a file.
std::shared_ptr<const PictureToSee> open_picture_file(const std::string& path, const PictureRules& rules = {});
// The bytes behind a URL that is no data URL, no more than bytes_max. Throws Error with the reason.
using RemoteFetch = std::function<std::string(const std::string& url, std::size_t bytes_max)>;
// Of {"url": "data:image/png;base64,…"} or the text alone, as OpenAI's image_url part has it. Other URLs are refused
// where nobody fetches them.
std::shared_ptr<const PictureToSee> open_picture_url(const OrderedJson& image_url, const PictureRules& rules = {},
                                                     const RemoteFetch& fetch = {});

using Pictures = std::vector<std::shared_ptr<const PictureToSee>>;
// Adds one to those of a prompt. Throws Error{kInvalidArgument} for more than the rules allow.
void add_picture(Pictures& pictures, std::shared_ptr<const PictureToSee> picture, const PictureRules& rules);

// Takes the pictures out of a conversation: every part of type "image" or "image_url" is opened and becomes
// {"type": "image"}, as templates want it.
using PictureOpener = std::function<std::shared_ptr<const PictureToSee>(const OrderedJson& part)>;
Pictures take_pictures(OrderedJson& messages, const PictureRules& rules, const PictureOpener& open);

// The tokens around rows of pictures.
struct PictureTokens {
  std::int32_t row = 0;  // the placeholder
  std::int32_t whole_begin = 0, whole_end = 0;
  std::int32_t crop_begin = 0, crop_end = 0, crop_line = 0;  // line: after the last crop of a row of them
  std::int64_t whole_rows = 0, crop_rows = 0;
};

// By their spellings. Throws Error{kInvalidData} naming one that the tokenizer lacks, or spells with another id.
PictureTokens find_picture_tokens(const Tokenizer& tokenizer, const VisionConfig& vision);

struct PicturePrompt {
  std::vector<std::int32_t> ids;
  std::vector<PlacedPicture> pictures;
};

// Each placeholder in ids becomes the next picture. Throws Error{kInvalidArgument} unless there are as many of both.
PicturePrompt expand_pictures(const std::vector<std::int32_t>& ids, const Pictures& pictures,
                              const PictureTokens& tokens);

}  // namespace tandem
