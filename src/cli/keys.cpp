// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem keys: what the processes of a deployment know each other by. All that it does is src/trust.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/format.h"
#include "base/read_file.h"
#include "cli/command.h"
#include "trust/certificate_maker.h"
#include "trust/private_file.h"
#include "trust/secret.h"

namespace tandem {

namespace {

constexpr std::size_t kPemBytesMax = 1 << 20;
constexpr std::int32_t kDaysMax = 36'500;

struct CertificateOptions {
  std::string folder;
  std::vector<std::string> hosts;
  std::int32_t days = 365;
  std::int32_t authority_days = 3650;
};

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
}

int make_secret(const std::string& path) {
  const std::string text = make_secret_text();
  write_private_file(path, text);
  say(format("{}: a secret, number {}; in the deployment file:\n\n[trust]\nsecret_file = \"{}\"", path,
             secret_number(parse_secret(text, path)), path));
  return 0;
}

// The folder's own, made when there is none.
Pem authority_in(const CertificateOptions& options) {
  const std::string certificate = options.folder + "/authority.pem", key = options.folder + "/authority.key";
  if (std::filesystem::exists(key))
    return {read_file_start(certificate, kPemBytesMax), read_private_file(key, kPemBytesMax)};
  const Pem made = make_authority("tandem deployment authority", options.authority_days);
  write_private_file(key, made.key);
  write_private_file(certificate, made.certificate);
  say(format("{}: the authority, for {} days; its key, {}, signs for new hosts and belongs on none of them",
             certificate, options.authority_days, key));
  return made;
}

int make_certificates(const CertificateOptions& options) {
  std::filesystem::create_directories(options.folder);
  const Pem authority = authority_in(options);
  for (const std::string& host : options.hosts) {
    const Pem pem = make_certificate(authority, host, options.days);
    const std::string folder = options.folder + "/" + host;
    std::filesystem::create_directories(folder);
    write_private_file(folder + "/key.pem", pem.key);
    write_private_file(folder + "/certificate.pem", pem.certificate);
    write_private_file(folder + "/authority.pem", authority.certificate);
    say(format("{}: for {}, {} days", folder, host, options.days));
  }
  say("\nCopy each host's folder to the same place on it, /etc/tandem for one; in the deployment file:\n\n[trust]\n"
      "certificate_file = \"/etc/tandem/certificate.pem\"\nkey_file = \"/etc/tandem/key.pem\"\n"
      "authority_file = \"/etc/tandem/authority.pem\"");
  return 0;
}

}  // namespace

Action declare_keys_secret(CLI::App& app) {
  const auto path = std::make_shared<std::string>();
  app.add_option("file", *path, "to make, mode 0600; one that exists is left alone")->required();
  return [path] { return make_secret(*path); };
}

Action declare_keys_certificates(CLI::App& app) {
  const auto options = std::make_shared<CertificateOptions>();
  app.add_option("folder", options->folder, "of the authority, and of a folder for each host")->required();
  app.add_option("hosts", options->hosts, "as the deployment file names them, and the front's")->required();
  app.add_option("--days", options->days, "that a host's certificate is good for")
      ->check(CLI::Range(1, kDaysMax))
      ->capture_default_str();
  app.add_option("--authority-days", options->authority_days, "the same of a new authority's")
      ->check(CLI::Range(1, kDaysMax))
      ->capture_default_str();
  return [options] { return make_certificates(*options); };
}

}  // namespace tandem
