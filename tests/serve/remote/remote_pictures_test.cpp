// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Fetching from a host that the operator trusts and that does its worst, on a network of the test's own.
#include "serve/remote/remote_pictures.h"

#include <gmock/gmock.h>

#include <chrono>
#include <future>

#include "base/format.h"
#include "serve/http/server.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/serve/remote/picture_host.h"
#include "tests/serve/remote/test_certificate.h"

namespace tandem {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr std::size_t kBytesMax = 100'000;
constexpr const char* kName = "pictures.example";

RemoteLimits limits_for(int port) {
  return {.hosts = {format("{}:{}", kName, port)}, .at_once = 2, .ms_max = 20'000, .connect_ms_max = 20'000};
}

std::string fetch_from(RemotePictures& pictures, const std::string& url) {
  RemotePictures::Allowance allowance(pictures);
  return pictures.fetch(url, kBytesMax, allowance);
}

// What one host answers, whatever is asked.
std::string fetch_answer(PictureHost::Behaviour behaviour, std::int64_t ms_max = 20'000) {
  PictureHost host(std::move(behaviour));
  RemoteLimits limits = limits_for(host.port());
  limits.ms_max = ms_max;
  RemotePictures pictures(limits, loopback_network());
  return fetch_from(pictures, format("http://{}:{}/a.png", kName, host.port()));
}

std::string fetch_answer(const std::string& answer) {
  return fetch_answer([&](const std::string&, const PictureHost::Send& send) { send(answer); });
}

std::string refusal(const std::string& answer) {
  return error_of([&] { fetch_answer(answer); }).message();
}

TEST(RemotePictures, AreTheBytesThatTheHostHas) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) { send(answer_with("bytes")); });
  RemotePictures pictures(limits_for(host.port()), loopback_network());
  EXPECT_EQ(fetch_from(pictures, format("http://{}:{}/a.png?x=1#y", kName, host.port())), "bytes");
  ASSERT_EQ(host.requests().size(), 1u);
  const std::string request = host.requests().front();
  EXPECT_THAT(request, testing::StartsWith("GET /a.png?x=1 HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr(format("\r\nHost: {}:{}\r\n", kName, host.port())));
  EXPECT_THAT(request, AllOf(Not(HasSubstr("Cookie")), Not(HasSubstr("Authorization")), Not(HasSubstr("Referer"))));
}

TEST(RemotePictures, MayComeInChunksOrUntilTheEnd) {
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: Image/PNG; x=y\r\n";
  EXPECT_EQ(fetch_answer(head + "Transfer-Encoding: chunked\r\n\r\n3\r\nbyt\r\n2\r\nes\r\n0\r\n\r\n"), "bytes");
  EXPECT_EQ(fetch_answer(head + "\r\nbytes"), "bytes");
  const std::string dripping = head + "Transfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n";
  EXPECT_EQ(fetch_answer([&](const std::string&, const PictureHost::Send& send) {
              for (const char c : dripping) send(std::string(1, c));
            }),
            "bytes");
}

TEST(RemotePictures, AreNotAskedForWhereTheListDoesNotNameTheHost) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) { send(answer_with("bytes")); });
  RemoteSeams network = loopback_network();
  int looked_up = 0;
  network.look_up = [&](const std::string&) {
    ++looked_up;
    return std::vector<IpAddress>{};
  };
  RemotePictures pictures(limits_for(host.port()), network);
  const int port = host.port();
  for (const std::string& url :
       {format("http://evil.example:{}/", port), format("http://a.{}:{}/", kName, port),
        format("http://{}.evil.example:{}/", kName, port), format("http://{}/", kName), format("https://{}/", kName),
        format("http://{}:{}@evil.example/", kName, port), format("http://{}@evil.example:{}/", kName, port),
        format("http://127.0.0.1:{}/", port), format("http://2130706433:{}/", port), format("http://[::1]:{}/", port),
        format("http://0177.0.0.1:{}/", port), std::string("file:///etc/passwd"), std::string("a.png")})
    EXPECT_EQ(error_of([&] { fetch_from(pictures, url); }).code(), ErrorCode::kInvalidArgument) << url;
  EXPECT_EQ(looked_up, 0);
  EXPECT_TRUE(host.requests().empty());
}

TEST(RemotePictures, AreNotFetchedWhereNoHostIsNamed) {
  RemotePictures none({});
  EXPECT_THAT(error_of([&] { fetch_from(none, "https://pictures.example/"); }).message(),
              HasSubstr("remote pictures are not fetched: send a data URL"));
}

// One message for whatever a name leads to within.
TEST(RemotePictures, ComeFromPublicAddressesOnly) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) { send(answer_with("bytes")); });
  const std::string url = format("http://{}:{}/", kName, host.port());
  for (const std::vector<std::string>& found : {std::vector<std::string>{"127.0.0.1"},
                                                {"10.0.0.1"},
                                                {"169.254.169.254"},
                                                {"::1"},
                                                {"::ffff:127.0.0.1"},
                                                {"fd00::1"},
                                                {"93.184.216.34", "127.0.0.1"},
                                                {}}) {
    RemoteSeams network;  // with the real rule
    network.look_up = [&](const std::string&) {
      std::vector<IpAddress> addresses;
      for (const std::string& text : found) addresses.push_back(parse_ip_address(text));
      return addresses;
    };
    RemotePictures pictures(limits_for(host.port()), network);
    EXPECT_EQ(error_of([&] { fetch_from(pictures, url); }).message(),
              "the picture cannot be fetched from pictures.example: it cannot be reached");
  }
  EXPECT_TRUE(host.requests().empty());
}

// What is checked is what is connected to: a name that means another address the next time is not asked again.
TEST(RemotePictures, AreLookedUpOnce) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) { send(answer_with("bytes")); });
  RemoteSeams network = loopback_network();
  int looked_up = 0;
  network.look_up = [&](const std::string&) {
    return std::vector<IpAddress>{parse_ip_address(++looked_up == 1 ? "127.0.0.1" : "127.0.0.2")};
  };
  network.may_reach = [](const IpAddress& address) { return address == parse_ip_address("127.0.0.1"); };
  RemotePictures pictures(limits_for(host.port()), network);
  EXPECT_EQ(fetch_from(pictures, format("http://{}:{}/", kName, host.port())), "bytes");
  EXPECT_EQ(looked_up, 1);
}

TEST(RemotePictures, ComeFromTheNextAddressWhereOneDoesNotAnswer) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) { send(answer_with("bytes")); });
  RemoteSeams network = loopback_network();
  network.look_up = [](const std::string&) {
    return std::vector<IpAddress>{parse_ip_address("::1"), parse_ip_address("127.0.0.1")};
  };
  RemotePictures pictures(limits_for(host.port()), network);
  EXPECT_EQ(fetch_from(pictures, format("http://{}:{}/", kName, host.port())), "bytes");
}

TEST(RemotePictures, AClosedPortIsOutOfReach) {
  int port = 0;
  {
    port = PictureHost([](const std::string&, const PictureHost::Send&) {}).port();
  }
  RemotePictures pictures(limits_for(port), loopback_network());
  EXPECT_EQ(error_of([&] { fetch_from(pictures, format("http://{}:{}/", kName, port)); }).message(),
            "the picture cannot be fetched from pictures.example: it cannot be reached");
}

TEST(RemotePictures, RedirectsAreNotFollowed) {
  PictureHost within([](const std::string&, const PictureHost::Send& send) { send(answer_with("secret")); });
  const std::string answer =
      format("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n", within.port());
  EXPECT_THAT(refusal(answer), HasSubstr("it redirects, which is not followed"));
  EXPECT_TRUE(within.requests().empty());
}

TEST(RemotePictures, OtherAnswersAreRefusedWithTheReason) {
  EXPECT_THAT(refusal("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), HasSubstr("status 404"));
  EXPECT_THAT(refusal("HTTP/1.1 206 Partial\r\nContent-Type: image/png\r\nContent-Length: 1\r\n\r\na"),
              HasSubstr("status 206"));
  EXPECT_THAT(refusal(answer_with("<html>", "text/html")), HasSubstr("no picture by its content type"));
  EXPECT_THAT(refusal(answer_with("{}", "application/json")), HasSubstr("no picture by its content type"));
  EXPECT_THAT(refusal("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), HasSubstr("content type"));
  EXPECT_THAT(refusal("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Encoding: gzip\r\n"
                      "Content-Length: 1\r\n\r\na"),
              HasSubstr("encoding that was not asked for"));
  EXPECT_THAT(refusal("SSH-2.0-OpenSSH_9.2\r\n\r\n"), HasSubstr("not HTTP"));
  EXPECT_THAT(refusal(""), HasSubstr("ends before all has come"));
  EXPECT_THAT(refusal("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nbytes"),
              HasSubstr("ends before all has come"));
  EXPECT_THAT(refusal("HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x')), HasSubstr("not HTTP"));
}

TEST(RemotePictures, AreNoLongerThanAPictureMayBe) {
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n", most(kBytesMax, 'a');
  EXPECT_EQ(fetch_answer(answer_with(most)), most);
  EXPECT_THAT(refusal(answer_with(most + "a")), HasSubstr("more than 100000 bytes"));
  EXPECT_THAT(refusal(head + "Content-Length: 99999999999\r\n\r\n"), HasSubstr("more than 100000 bytes"));
  for (const bool chunked : {false, true}) {  // without a length, and without an end
    const auto endless = [&](const std::string&, const PictureHost::Send& send) {
      const std::string part = chunked ? "1000\r\n" + std::string(0x1000, 'a') + "\r\n" : std::string(0x1000, 'a');
      bool here = send(head + (chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n"));
      while (here) here = send(part);
    };
    EXPECT_THAT(error_of([&] { fetch_answer(endless); }).message(), HasSubstr("more than 100000 bytes"));
  }
}

TEST(RemotePictures, ThatDoNotComeInTimeAreGivenUp) {
  const auto slow = [](const std::string&, const PictureHost::Send& send) {
    send("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n");
    while (send("a")) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  };
  EXPECT_THAT(error_of([&] { fetch_answer(slow, 100); }).message(), HasSubstr("it takes longer than 100 ms"));
}

// All pictures of a request share its time.
TEST(RemotePictures, HaveTheTimeThatThoseBeforeThemLeft) {
  PictureHost host([](const std::string&, const PictureHost::Send& send) {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    send(answer_with("bytes"));
  });
  RemoteLimits limits = limits_for(host.port());
  limits.ms_max = 500;
  RemotePictures pictures(limits, loopback_network());
  RemotePictures::Allowance allowance(pictures);
  const auto fetch_many = [&] {
    for (int i = 0; i < 20; ++i) pictures.fetch(format("http://{}:{}/", kName, host.port()), kBytesMax, allowance);
  };
  EXPECT_THAT(error_of(fetch_many).message(), HasSubstr("it takes longer than 500 ms"));
}

TEST(RemotePictures, ANameThatIsNotFoundInTimeIsOutOfReach) {
  RemoteSeams network = loopback_network();
  std::promise<void> go_on;
  network.look_up = [&](const std::string&) {
    go_on.get_future().wait();
    return std::vector<IpAddress>{};
  };
  RemoteLimits limits = limits_for(80);
  limits.connect_ms_max = 30;
  RemotePictures pictures(limits, network);
  EXPECT_THAT(error_of([&] { fetch_from(pictures, format("http://{}/", kName)); }).message(),
              HasSubstr("it cannot be reached"));
  go_on.set_value();
}

TEST(RemotePictures, MoreAtOnceThanMayBeAreToldToComeAgain) {
  std::promise<void> go_on;
  std::shared_future<void> gate = go_on.get_future();
  PictureHost host([&](const std::string&, const PictureHost::Send& send) {
    gate.wait();
    send(answer_with("bytes"));
  });
  RemotePictures pictures(limits_for(host.port()), loopback_network());
  const std::string url = format("http://{}:{}/", kName, host.port());
  std::vector<std::future<std::string>> fetches;
  for (int i = 0; i < 2; ++i)
    fetches.push_back(std::async(std::launch::async, [&] { return fetch_from(pictures, url); }));
  while (host.requests().size() < 2) std::this_thread::yield();
  const Error error = error_of([&] { fetch_from(pictures, url); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("2 remote pictures are being fetched already (--remote-images-at-once)"));
  go_on.set_value();
  for (auto& fetch : fetches) EXPECT_EQ(fetch.get(), "bytes");
  EXPECT_EQ(fetch_from(pictures, url), "bytes");
}

// An hour is left, and a name that is looked up for ever, or a host that never ends.
TEST(RemotePictures, AreGivenUpWhenTheServerStops) {
  std::promise<void> go_on;
  PictureHost host([](const std::string&, const PictureHost::Send& send) {
    send("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n");
    while (send("a")) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  RemoteSeams network = loopback_network();
  std::promise<void> asked;
  network.look_up = [&, find = network.look_up](const std::string& name) {
    if (name != kName) {
      asked.set_value();
      go_on.get_future().wait();
    }
    return find(name);
  };
  RemoteLimits limits = limits_for(host.port());
  limits.hosts.push_back("lost.example");
  limits.ms_max = limits.connect_ms_max = 3'600'000;
  RemotePictures pictures(limits, network);
  const auto failure_of = [&](const std::string& url) {
    return std::async(std::launch::async, [&, url] { return error_of([&] { fetch_from(pictures, url); }).message(); });
  };
  std::future<std::string> endless = failure_of(format("http://{}:{}/", kName, host.port()));
  while (host.requests().empty()) std::this_thread::yield();
  std::future<std::string> lost = failure_of("http://lost.example/");
  asked.get_future().wait();
  pictures.stop();
  EXPECT_THAT(endless.get(), HasSubstr("the picture cannot be fetched"));
  EXPECT_THAT(lost.get(), HasSubstr("the picture cannot be fetched"));
  go_on.set_value();
}

// ---- TLS

class PictureHandler final : public HttpHandler {
 public:
  std::unique_ptr<Reply> on_head(HttpRequest&) override { return nullptr; }
  std::unique_ptr<Reply> on_request(HttpRequest&, const Wake&) override {
    return std::make_unique<WholeReply>(HttpHead{.content_type = "image/png"}, "bytes");
  }
  std::unique_ptr<Reply> on_error(int status, std::string_view) override {
    return std::make_unique<WholeReply>(HttpHead{.status = status}, "");
  }
  void on_connection(int) override {}
  void on_end(const HttpRequest&, const Reply*, const ExchangeEnd&) override {}
};

TEST(RemotePicturesOverTls, ComeFromWhoeverCanShowTheNamesCertificate) {
  const TemporaryFolder folder;
  write_certificate(kName, folder.path("right.pem"), folder.path("right.key"));
  write_certificate("other.example", folder.path("other.pem"), folder.path("other.key"));
  PictureHandler handler;
  const auto message_from = [&](const std::string& shown, const std::string& trusted) {
    const auto server = HttpServer::start({.port = 0,
                                           .tls_certificate = folder.path(shown + ".pem"),
                                           .tls_key = folder.path(shown + ".key"),
                                           .limits = {.body_bytes_max = 1000}},
                                          handler);
    RemoteSeams network = loopback_network();
    if (!trusted.empty()) network.certificates = folder.path(trusted + ".pem");
    RemotePictures pictures(limits_for(server->port()), network);
    try {
      return fetch_from(pictures, format("https://{}:{}/", kName, server->port()));
    } catch (const Error& error) {
      return error.message();
    }
  };
  EXPECT_EQ(message_from("right", "right"), "bytes");
  for (const auto& [shown, trusted] : {std::pair{"other", "other"}, {"right", "other"}, {"right", ""}})
    EXPECT_THAT(message_from(shown, trusted), HasSubstr("its certificate must be of this host and be trusted"))
        << shown << ", " << trusted;
}

TEST(RemotePicturesOverTls, AHostWithoutTlsIsRefused) {
  PictureHost host([](const std::string&, const PictureHost::Send&) {});
  RemotePictures pictures(limits_for(host.port()), loopback_network());
  EXPECT_THAT(error_of([&] { fetch_from(pictures, format("https://{}:{}/", kName, host.port())); }).message(),
              HasSubstr("TLS fails"));
  EXPECT_TRUE(host.requests().empty());
}

TEST(RemotePicturesOverTls, AuthoritiesThatCannotBeReadAreNamed) {
  RemoteSeams network;
  network.certificates = "/nowhere/authorities.pem";
  EXPECT_THAT(error_of([&] { RemotePictures(limits_for(1), network); }).message(),
              HasSubstr("/nowhere/authorities.pem"));
}

}  // namespace
}  // namespace tandem
