// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/reference.h"

#include "base/format.h"
#include "serve/metrics.h"
#include "serve/openai/fields.h"
#include "serve/routes.h"
#include "serve/settings.h"

namespace tandem {

namespace {

std::string routes_section() {
  std::string text = "## Routes\n\n| route | what it gives | key |\n|---|---|---|\n";
  for (const Route& route : route_rows())
    text +=
        format("| `{} {}` | {} | {} |\n", route.method, route.path, route.doc, route.open ? "never asked for" : "yes");
  return text;
}

std::string_view where(const FieldRow& row) {
  const bool chat = (row.endpoints & static_cast<unsigned>(Endpoint::kChat)) != 0;
  const bool text = (row.endpoints & static_cast<unsigned>(Endpoint::kCompletions)) != 0;
  return chat && text ? "both" : chat ? "chat" : "completions";
}

std::string values_of(const FieldRow& row) {
  switch (row.kind) {
    case FieldKind::kBoolean:
      return "true, false";
    case FieldKind::kText:
      return "text";
    case FieldKind::kOther:
      return "";
    case FieldKind::kInteger:
    case FieldKind::kNumber:
      break;
  }
  if (row.max >= 0x1p63) return "any of 64 bits";
  const RequestLimits defaults;
  const double max = row.limit ? static_cast<double>(defaults.*row.limit) : row.max;
  return format("{} to {}", row.min, row.max >= INT32_MAX ? "2³¹−1" : format("{}", max));
}

std::string fields_section() {
  std::string text = "## Fields\n\n### Supported\n\n| field | of | values | meaning |\n|---|---|---|---|\n";
  for (const FieldRow& row : field_rows())
    if (row.use == FieldUse::kSupported)
      text += format("| `{}` | {} | {} | {} |\n", row.name, where(row), values_of(row), row.doc);
  text += "\n### Taken without effect\n\n";
  for (const FieldRow& row : field_rows())
    if (row.use == FieldUse::kNoEffect) text += format("- `{}`: {}\n", row.name, row.doc);
  text +=
      "\n### Known and not supported\n\nA 400 that names the field, unless it has a value that asks for nothing.\n\n"
      "| field | of | meaning | values that ask for nothing |\n|---|---|---|---|\n";
  for (const FieldRow& row : field_rows()) {
    if (row.use != FieldUse::kUnsupported) continue;
    std::string neutral = "null";
    for (const OrderedJson& value : OrderedJson::parse(row.neutral)) neutral += ", " + value.dump();
    text += format("| `{}` | {} | {} | `{}` |\n", row.name, where(row), row.doc, neutral);
  }
  return text;
}

std::string default_of(const SettingRow& row) {
  ServeSettings defaults;
  const SettingRow::Place place = row.place(defaults);
  if (const auto* number = std::get_if<std::int64_t*>(&place)) return format("{}", **number);
  if (const auto* string = std::get_if<std::string*>(&place)) return (*string)->empty() ? "" : format("`{}`", **string);
  return std::holds_alternative<bool*>(place) ? "off" : "none";
}

std::string settings_section(const char* title, bool limits) {
  std::string text = format("## {}\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n", title);
  for (const SettingRow& row : setting_rows())
    if (row.limit == limits)
      text += format("| `--{}` | `{}` | {} | {} |\n", row.name, environment_name(row.name), default_of(row), row.doc);
  return text;
}

std::string metrics_section() {
  std::string text = "## Metrics\n\n| name | kind | meaning |\n|---|---|---|\n";
  for (const MetricRow& row : metric_rows()) text += format("| `{}` | {} | {} |\n", row.name, row.kind, row.doc);
  return text;
}

}  // namespace

std::string serving_reference() {
  return kReferenceMark + format("\n{}\n{}\n{}\n{}\n{}", routes_section(), fields_section(),
                                 settings_section("Limits of what clients send", true),
                                 settings_section("Settings of the server", false), metrics_section());
}

}  // namespace tandem
