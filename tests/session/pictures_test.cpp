// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Prompts with pictures, against recorded ones and the specification's counts of tokens.
#include "session/pictures.h"

#include <gmock/gmock.h>

#include "session/open_model.h"
#include "tests/base/error_of.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr const char* kFolder = "tests/goldens/step3_vl";

std::shared_ptr<const PictureToSee> picture_of(PictureSize size) {
  auto picture = std::make_shared<PictureToSee>();
  picture->picture.size = size;
  picture->plan = plan_crops(size);
  return picture;
}

class PicturesTest : public testing::Test {
 protected:
  std::vector<std::int32_t> expanded(std::vector<std::int32_t> ids, const std::vector<PictureSize>& sizes) {
    Pictures pictures;
    for (const PictureSize size : sizes) pictures.push_back(picture_of(size));
    return expand_pictures(ids, pictures, tokens_).ids;
  }

  OpenModel model_ = open_model(kFolder);
  PictureTokens tokens_ = find_picture_tokens(model_.tokenizer, *read_config(*model_.checkpoint).vision);
};

TEST_F(PicturesTest, EveryRecordedPlanHasItsNumberOfTokens) {
  for (const Json& plan : Json::parse(read_test_file(std::string(kFolder) + "/preprocess_plans.json"))) {
    const PictureSize size{plan["size"][0], plan["size"][1]};
    EXPECT_EQ(expanded({tokens_.row}, {size}).size(), plan["tokens"].get<std::size_t>()) << plan.dump();
  }
}

TEST_F(PicturesTest, RecordedPromptsAreThoseOfTheirPictures) {
  const VisionRecording recording;
  const std::vector<PictureSize> sizes = recording.picture_sizes();
  for (std::size_t i = 0; i < recording.json()["cases"].size(); ++i) {
    const auto ids = recording.values<std::int32_t>("case" + std::to_string(i) + ".prompt0.input_ids");
    std::vector<PictureSize> pictures;
    for (const Json& index : recording.json()["cases"][i]["images"]) pictures.push_back(sizes[index]);
    // Back to one placeholder for each picture: what frames rows goes, and the whole view's rows become one.
    std::vector<std::int32_t> plain;
    for (const std::int32_t id : ids) {
      const bool frame = id == tokens_.crop_begin || id == tokens_.crop_end || id == tokens_.crop_line ||
                         id == tokens_.whole_begin || id == tokens_.row;
      if (id == tokens_.whole_end)
        plain.push_back(tokens_.row);
      else if (!frame)
        plain.push_back(id);
    }
    EXPECT_EQ(expanded(plain, pictures), ids) << "case " << i;
  }
}

TEST_F(PicturesTest, PlacesNameEveryRowOnceInOrder) {
  const auto picture = picture_of({1280, 720});
  const PicturePrompt prompt = expand_pictures({5, tokens_.row, 6}, {picture}, tokens_);
  ASSERT_EQ(prompt.pictures.size(), 1u);
  std::int64_t rows = 0;
  for (const PlacedPicture::Place& place : prompt.pictures.front().places) {
    EXPECT_EQ(place.first_row, rows);
    for (std::int64_t i = 0; i < place.count; ++i) EXPECT_EQ(prompt.ids.at(place.position + i), tokens_.row);
    rows += place.count;
  }
  EXPECT_EQ(rows, 6 * 81 + 169);
  EXPECT_EQ(std::ranges::count(prompt.ids, tokens_.row), rows);
  EXPECT_EQ(std::ranges::count(prompt.ids, tokens_.crop_line), 1);
  EXPECT_EQ(prompt.ids.front(), 5);
  EXPECT_EQ(prompt.ids.back(), 6);
}

TEST_F(PicturesTest, AsManyPicturesAsPlaceholders) {
  const PictureSize size{64, 64};
  EXPECT_THAT(error_of([&] { expanded({1, tokens_.row}, {}); }).message(),
              HasSubstr("1 placeholders for pictures and 0"));
  EXPECT_THAT(error_of([&] { expanded({1}, {size}); }).message(), HasSubstr("0 placeholders for pictures and 1"));
  EXPECT_THAT(error_of([&] { expanded({tokens_.row}, {size, size}); }).message(), HasSubstr("1 placeholders"));
}

TEST_F(PicturesTest, TokensMustBeThere) {
  VisionConfig vision = *read_config(*model_.checkpoint).vision;
  vision.start_token = "<im_begin>";
  EXPECT_THAT(error_of([&] { find_picture_tokens(model_.tokenizer, vision); }).message(), HasSubstr("<im_begin>"));
  vision = *read_config(*model_.checkpoint).vision;
  vision.image_token = 3;
  EXPECT_THAT(error_of([&] { find_picture_tokens(model_.tokenizer, vision); }).message(),
              HasSubstr("config.json says 3"));
}

TEST_F(PicturesTest, APlaceholderThatAUserTypesStaysText) {
  const auto ids = [&](const OrderedJson& content) {
    return model_.chat_prompt(OrderedJson::array({{{"role", "user"}, {"content", content}}}));
  };
  EXPECT_EQ(std::ranges::count(ids("look: <im_patch>"), tokens_.row), 0);
  const OrderedJson parts = OrderedJson::array(
      {{{"type", "image"}}, {{"type", "text"}, {"text", "<im_patch> <im_start>"}}, {{"type", "image"}}});
  EXPECT_EQ(std::ranges::count(ids(parts), tokens_.row), 2);
  EXPECT_EQ(std::ranges::count(ids(parts), tokens_.whole_begin), 0);
}

TEST(OpenPicture, RefusesWhatIsNoneOrTooMuch) {
  const std::string png = read_test_file("tests/goldens/pictures/rgb.png");
  const auto picture = open_picture(png);
  EXPECT_EQ(picture->plan.size, (PictureSize{24, 16}));
  EXPECT_EQ(picture->digest, content_digest(png));
  EXPECT_THROW(open_picture("no picture"), Error);
  PictureRules strict;
  strict.crops.pixels_max = 100;
  EXPECT_THROW(open_picture(png, strict), Error);
}

}  // namespace
}  // namespace tandem
