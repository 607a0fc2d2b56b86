// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Pictures over a socket: what they do to a prompt, and the reason that each one gets that is refused.
#include <gmock/gmock.h>

#include <future>

#include "base/format.h"
#include "tests/image/png_header.h"
#include "tests/image/recording.h"
#include "tests/serve/picture_part.h"
#include "tests/serve/remote/picture_host.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr const char* kModel = "tests/goldens/step3_vl";
constexpr std::int64_t kWholeTokens = 171;  // of a picture without crops: its rows and what frames them

std::string picture_file(const std::string& name) {
  return read_test_file("tests/goldens/pictures/" + name);
}

Json text_part(std::string_view text) {
  return {{"type", "text"}, {"text", text}};
}

// Braces around one part are an array for one compiler and the part itself for another.
Json only(Json part) {
  return Json::array({std::move(part)});
}

Json said(Json content, const char* role = "user") {
  return {{"max_tokens", 4}, {"temperature", 0}, {"messages", {{{"role", role}, {"content", std::move(content)}}}}};
}

std::int64_t prompt_tokens(const HttpAnswer& answer) {
  EXPECT_EQ(answer.status, 200) << answer.body;
  return answer.status == 200 ? answer.json()["usage"]["prompt_tokens"].get<std::int64_t>() : -1;
}

std::string text_of(const HttpAnswer& answer) {
  const Json message = answer.json()["choices"][0]["message"];
  return message.dump();
}

class ServedPictures : public ::testing::Test {
 protected:
  HttpAnswer show(Json content, const char* role = "user") { return server_.chat(said(std::move(content), role)); }
  void expect_refused(Json content, std::string_view reason, const char* role = "user") {
    const HttpAnswer answer = show(std::move(content), role);
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_THAT(answer.error()["message"].get<std::string>(), HasSubstr(reason));
    EXPECT_EQ(answer.error()["param"], "messages[0].content");
  }
  std::int64_t metric(const std::string& name) {
    const std::string page = get(server_.port(), "/metrics").body;
    const std::size_t at = page.find("\n" + name + " ");
    EXPECT_NE(at, std::string::npos) << name;
    return std::stoll(page.substr(at + name.size() + 2));
  }

  const std::string png_ = picture_file("rgb.png"), jpeg_ = picture_file("smooth.jpg");
  TestServer server_{{.model = kModel}};
};

TEST_F(ServedPictures, TakeTheirPlaceInThePromptAndAreSeenOnce) {
  const std::int64_t bare = prompt_tokens(show(only(text_part("What is it?"))));
  const Json content = {picture_part(png_), text_part("What is it?")};
  const HttpAnswer first = show(content), again = show(content);
  // A space before the text is a token of its own now.
  EXPECT_EQ(prompt_tokens(first), bare + kWholeTokens + 1);
  EXPECT_EQ(text_of(again), text_of(first));
  EXPECT_EQ(first.json()["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_GE(again.json()["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>(), 128);
  EXPECT_EQ(metric("tandem:pictures_total"), 2);
  EXPECT_EQ(metric("tandem:picture_views_total"), 1);
  EXPECT_EQ(metric("tandem:picture_cache_hits_total"), 1);
  // Another picture under the same tokens shares nothing behind its beginning.
  const HttpAnswer other = show({picture_part(jpeg_), text_part("What is it?")});
  EXPECT_EQ(prompt_tokens(other), bare + kWholeTokens + 1);
  EXPECT_EQ(other.json()["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(ServedPictures, MayBeSeveralInOnePromptAndForSeveralAnswers) {
  const std::int64_t bare = prompt_tokens(show({text_part("a"), text_part("b")}));
  Json body = said({picture_part(png_), text_part("a"), picture_part(jpeg_), text_part("b")});
  body["n"] = 2;
  const HttpAnswer answer = server_.chat(body);
  // Without pictures parts of text stand one below the other.
  EXPECT_NEAR(static_cast<double>(prompt_tokens(answer)), static_cast<double>(bare + 2 * kWholeTokens), 1);
  EXPECT_EQ(answer.json()["choices"].size(), 2u);
  const HttpAnswer counted = post(server_.port(), "/tokenize", body);
  EXPECT_EQ(counted.json()["count"], prompt_tokens(answer));
}

TEST_F(ServedPictures, AStreamedAnswerIsTheWholeOne) {
  Json body = said({picture_part(png_), text_part("?")});
  const Json whole = server_.chat(body).json()["choices"][0]["message"];
  body["stream"] = true;
  std::string streamed;
  for (const Json& event : events_of(server_.chat(body).body))
    if (event.is_object() && !event["choices"].empty())
      for (const char* part : {"reasoning_content", "content"})
        if (const Json& delta = event["choices"][0]["delta"]; delta.contains(part) && delta[part].is_string())
          streamed += delta[part].get<std::string>();
  std::string expected;
  for (const char* part : {"reasoning_content", "content"})
    if (whole.contains(part) && whole[part].is_string()) expected += whole[part].get<std::string>();
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(streamed, expected);
}

TEST_F(ServedPictures, EachBadOneIsRefusedWithAReason) {
  const auto refused = [this](const std::string& file, std::string_view reason) {
    SCOPED_TRACE(reason);
    expect_refused({picture_part(file), text_part("?")}, reason);
  };
  refused(picture_file("dot.png"), "1x1 pixels, the least is 2");
  refused(png_header(60'000, 60'000), "60000x60000 pixels, limit is 16384 a side");
  refused(png_header(16'000, 16'000), "limit is 40000000 in all");
  refused(png_.substr(0, png_.size() / 2), "picture: ");
  refused(jpeg_.substr(0, jpeg_.size() / 2), "picture: ");
  refused(picture_file("one.gif"), "it is Gif, supported are JPEG, PNG and WebP");
  refused("<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture that this build knows");
  refused("", "no picture that this build knows");
  refused(picture_file("animated.png"), "animated");
  refused(picture_file("animated.webp"), "animated");
  refused(picture_file("cmyk.jpg"), "CMYK");
}

TEST_F(ServedPictures, WhatIsNoPictureAtAllIsRefusedToo) {
  for (const char* url : {"https://example.com/cat.png", "http://127.0.0.1/x", "file:///etc/passwd", "cat.png", ""})
    expect_refused(only(url_part(url)), "remote pictures are not fetched: send a data URL");
  expect_refused(only(url_part("data:image/png,abc")), "must be data:TYPE;base64,DATA");
  expect_refused(only(url_part("data:image/png;base64,Zm 9")), "character 3 of its data is not base64");
  expect_refused(only({{"type", "image_url"}}), "without image_url");
  expect_refused(only({{"type", "image_url"}, {"image_url", 7}}), "image_url must be");
  expect_refused(only({{"type", "input_audio"}}), "parts other than text and image_url");
  expect_refused(only({{"type", "image"}, {"path", "/etc/passwd"}}), "parts other than text and image_url");
  expect_refused(only(picture_part(png_)), "which is for messages of a user", "system");
}

TEST_F(ServedPictures, APlaceholderThatAUserTypesStaysText) {
  const std::int64_t typed = prompt_tokens(show("<im_patch>")), plain = prompt_tokens(show("."));
  EXPECT_GT(typed, plain);
  EXPECT_LT(typed, plain + 20) << "no row of a picture";
  EXPECT_EQ(prompt_tokens(show({picture_part(png_), text_part("<im_patch><im_start>")})),
            prompt_tokens(show("<im_patch><im_start>")) + kWholeTokens);
  // The token itself has no picture to stand for.
  const std::int32_t placeholder = server_.model().picture_tokens->row;
  const HttpAnswer answer = server_.complete({{"prompt", {1, placeholder, 2}}, {"max_tokens", 1}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.error()["message"].get<std::string>(), HasSubstr("1 placeholders for pictures and 0 pictures"));
}

TEST(PictureLimits, HoldForTheFileAndForAllOfAPrompt) {
  const std::string png = picture_file("rgb.png");
  TestServerConfig config{.model = kModel};
  config.settings.limits.picture_bytes_max = 1024;
  config.settings.limits.pictures_max = 2;
  TestServer server(std::move(config));
  const auto message = [&](Json content) {
    return server.chat(said(std::move(content))).error()["message"].get<std::string>();
  };
  EXPECT_THAT(message(only(picture_part(png + std::string(1024, 'a')))),
              HasSubstr("data URL: it has 1237 bytes, limit is 1024"));
  EXPECT_THAT(message({picture_part(png), picture_part(png), picture_part(png)}),
              HasSubstr("more than 2 pictures in one prompt"));
  TestServerConfig few{.model = kModel};
  few.settings.limits.picture_pixels_max = 1024;  // three pictures of 384 fit, nine do not
  TestServer strict(std::move(few));
  Json many = Json::array();
  for (int i = 0; i < 9; ++i) many.push_back(picture_part(png));
  EXPECT_THAT(strict.chat(said(many)).error()["message"].get<std::string>(),
              HasSubstr("the prompt's pictures have 3456 pixels together, limit is 3072"));
}

// The operator names a host: pictures of it are those of data URLs, everything else stays refused.
TEST(RemotePicturesServed, AreSeenLikeThoseInTheRequest) {
  const std::string png = picture_file("rgb.png");
  PictureHost host([&](const std::string& request, const PictureHost::Send& send) {
    send(answer_with(request.starts_with("GET /rgb.png ") ? png : "<svg/>"));
  });
  TestServerConfig config{.model = kModel};
  config.settings.limits.remote.hosts = {format("pictures.example:{}", host.port())};
  config.settings.limits.pictures_max = 2;
  config.remote = loopback_network();
  TestServer server(std::move(config));
  const std::string base = format("http://pictures.example:{}/", host.port());
  const HttpAnswer remote = server.chat(said({url_part(base + "rgb.png"), text_part("?")}));
  const HttpAnswer local = server.chat(said({picture_part(png), text_part("?")}));
  EXPECT_EQ(prompt_tokens(remote), prompt_tokens(local));
  EXPECT_EQ(text_of(remote), text_of(local));
  const auto refusal = [&](Json content) {
    const HttpAnswer answer = server.chat(said(std::move(content)));
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_EQ(answer.error()["code"], "invalid_image");
    return answer.error()["message"].get<std::string>();
  };
  EXPECT_THAT(refusal(only(url_part(base + "x.svg"))), HasSubstr("no picture that this build knows"));
  EXPECT_THAT(refusal(only(url_part("http://127.0.0.1/x"))), HasSubstr("its host is no name"));
  EXPECT_THAT(refusal(only(url_part("https://example.com/cat.png"))),
              HasSubstr("remote pictures are not fetched from example.com port 443"));
  EXPECT_THAT(refusal(only(url_part("file:///etc/passwd"))), HasSubstr("must begin with http:// or https://"));
  const std::size_t asked = host.requests().size();
  const Json one = url_part(base + "rgb.png");
  EXPECT_THAT(refusal({one, one, one}), HasSubstr("more than 2 pictures in one prompt"));
  EXPECT_EQ(host.requests().size(), asked + 2) << "the third is not even fetched";
}

// Whoever waits for a picture keeps nobody else from being answered, and no more wait than the operator allows.
TEST(RemotePicturesServed, ThatAreSlowKeepNobodyElseWaiting) {
  std::promise<void> go_on;
  std::shared_future<void> gate = go_on.get_future();
  PictureHost host([&](const std::string&, const PictureHost::Send& send) {
    gate.wait();
    send(answer_with(picture_file("rgb.png")));
  });
  TestServerConfig config{.model = kModel};
  config.settings.http.threads = 1;
  config.settings.limits.remote = {.hosts = {format("pictures.example:{}", host.port())}, .at_once = 2};
  config.remote = loopback_network();
  TestServer server(std::move(config));
  const Json body = said(only(url_part(format("http://pictures.example:{}/", host.port()))));
  std::vector<std::future<HttpAnswer>> waiting;
  for (int i = 0; i < 2; ++i) waiting.push_back(std::async(std::launch::async, [&] { return server.chat(body); }));
  ASSERT_TRUE(eventually([&] { return host.requests().size() == 2; }));
  EXPECT_EQ(server.chat(said("Hello")).status, 200);
  const HttpAnswer third = server.chat(body);
  EXPECT_EQ(third.status, 429) << third.body;
  EXPECT_THAT(third.error()["message"].get<std::string>(), HasSubstr("(--remote-images-at-once)"));
  go_on.set_value();
  for (auto& answer : waiting) EXPECT_EQ(answer.get().status, 200);
}

TEST(PictureTemplates, MustShowEachPictureOnce) {
  const std::string png = picture_file("rgb.png");
  TestServer none({.model = kModel, .chat_template = "{{ messages[0].role }}"});
  EXPECT_THAT(none.chat(said(only(picture_part(png)))).error()["message"].get<std::string>(),
              HasSubstr("0 placeholders for pictures and 1 pictures"));
  TestServer twice({.model = kModel, .chat_template = "<im_patch><im_patch>"});
  EXPECT_THAT(twice.chat(said(only(picture_part(png)))).error()["message"].get<std::string>(),
              HasSubstr("2 placeholders for pictures and 1 pictures"));
}

TEST(PictureModels, TextAloneSeesNone) {
  TestServer server;
  const HttpAnswer answer = server.chat(said({picture_part(picture_file("rgb.png")), text_part("?")}));
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.error()["message"], "messages[0].content: this model sees no pictures");
}

}  // namespace
}  // namespace tandem
