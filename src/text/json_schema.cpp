// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

using Schema = OrderedJson;

constexpr int kRefsMax = 32;            // one behind the other
constexpr int kQuestionsMax = 200'000;  // about whether two schemas exclude each other, of one schema

const Schema* find(const Schema& schema, std::string_view key) {
  if (!schema.is_object()) return nullptr;
  const auto found = schema.find(key);
  return found == schema.end() ? nullptr : &*found;
}

bool is_annotation(std::string_view key) {
  constexpr std::array kAnnotations = {"title", "description", "default", "examples", "$comment", "deprecated"};
  return std::ranges::find(kAnnotations, key) != kAnnotations.end();
}

// ---- kinds of values

enum Kind : unsigned { kNull = 1, kBoolean = 2, kNumber = 4, kString = 8, kArray = 16, kObject = 32, kAny = 63 };

unsigned kind_named(const Schema& name) {
  if (name == "null") return kNull;
  if (name == "boolean") return kBoolean;
  if (name == "number" || name == "integer") return kNumber;
  if (name == "string") return kString;
  if (name == "array") return kArray;
  return name == "object" ? kObject : kAny;  // what is no kind is for the compiler to name
}

unsigned kind_of(const Schema& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_number()) return kNumber;
  if (value.is_string()) return kString;
  return value.is_array() ? kArray : kObject;
}

unsigned kinds_named(const Schema& type) {
  if (!type.is_array()) return kind_named(type);
  unsigned kinds = 0;
  for (const Schema& name : type) kinds |= kind_named(name);
  return kinds;
}

// The values of enum or const, if one of them is there.
std::optional<std::vector<Schema>> listed_values(const Schema& schema) {
  if (const Schema* value = find(schema, "const")) return std::vector<Schema>{*value};
  const Schema* values = find(schema, "enum");
  if (!values || !values->is_array()) return std::nullopt;
  return std::vector<Schema>(values->begin(), values->end());
}

// ---- whether two schemas exclude each other

class Exclusion {
 public:
  explicit Exclusion(const Schema& root) : root_(root) {}

  // True only if no value of the kinds named satisfies both.
  bool holds(const Schema& a, const Schema& b, unsigned among = kAny, int depth = 0) {
    if (depth > kRefsMax || ++questions_ > kQuestionsMax) return false;
    if (a == false || b == false) return true;
    if (!a.is_object() || !b.is_object()) return false;
    if (const Schema* target = referred(a); target && holds(*target, b, among, depth + 1)) return true;
    if (const Schema* target = referred(b); target && holds(a, *target, among, depth + 1)) return true;
    if (splits(a, b, among, depth) || splits(b, a, among, depth)) return true;
    const unsigned both = among & kinds(a, depth) & kinds(b, depth);
    if (both == 0) return true;
    if (values_apart(a, b) || values_apart(b, a)) return true;
    return (both & ~bounded_apart(a, b, depth)) == 0;
  }

 private:
  const Schema* referred(const Schema& schema) const {
    const Schema* reference = find(schema, "$ref");
    if (!reference || !reference->is_string()) return nullptr;
    const auto& text = reference->get_ref<const std::string&>();
    if (!text.starts_with('#')) return nullptr;
    try {
      return &root_.at(Schema::json_pointer(text.substr(1)));
    } catch (const nlohmann::json::exception&) {
      return nullptr;  // the compiler names it
    }
  }

  // Every option of a excludes b, or one of the schemas that a has to satisfy does.
  bool splits(const Schema& a, const Schema& b, unsigned among, int depth) {
    for (const char* key : {"anyOf", "oneOf"})
      if (const Schema* options = find(a, key); options && options->is_array() && !options->empty())
        if (std::ranges::all_of(*options, [&](const Schema& one) { return holds(one, b, among, depth + 1); }))
          return true;
    const Schema* all = find(a, "allOf");
    return all && all->is_array() &&
           std::ranges::any_of(*all, [&](const Schema& one) { return holds(one, b, among, depth + 1); });
  }

  // Of values that may satisfy it, and perhaps of others.
  unsigned kinds(const Schema& schema, int depth) {
    if (depth > kRefsMax || !schema.is_object()) return kAny;
    unsigned kinds_left = kAny;
    if (const Schema* type = find(schema, "type")) kinds_left &= kinds_named(*type);
    if (const auto values = listed_values(schema)) {
      unsigned of_values = 0;
      for (const Schema& value : *values) of_values |= kind_of(value);
      kinds_left &= of_values;
    }
    if (const Schema* target = referred(schema)) kinds_left &= kinds(*target, depth + 1);
    return kinds_left;
  }

  // The listed values of a are none of b's, by its list or its type.
  static bool values_apart(const Schema& a, const Schema& b) {
    const auto ours = listed_values(a);
    if (!ours) return false;
    const auto theirs = listed_values(b);
    const Schema* type = find(b, "type");
    return std::ranges::all_of(*ours, [&](const Schema& value) {
      if (theirs && std::ranges::find(*theirs, value) == theirs->end()) return true;
      return type && (kinds_named(*type) & kind_of(value)) == 0;
    });
  }

  // The kinds of values that bounds keep apart.
  unsigned bounded_apart(const Schema& a, const Schema& b, int depth) {
    unsigned apart = 0;
    const auto less = [&](const char* most, const char* least) {
      return most_of(a, most) < least_of(b, least) || most_of(b, most) < least_of(a, least);
    };
    const auto touch = [&](const Schema& low, const Schema& high) {  // equal bounds of which one is exclusive
      return most_of(low, "maximum") == least_of(high, "exclusiveMinimum") ||
             most_of(low, "exclusiveMaximum") == least_of(high, "minimum") ||
             most_of(low, "exclusiveMaximum") == least_of(high, "exclusiveMinimum");
    };
    for (const char* most : {"maximum", "exclusiveMaximum"})
      for (const char* least : {"minimum", "exclusiveMinimum"})
        if (less(most, least)) apart |= kNumber;
    if (touch(a, b) || touch(b, a)) apart |= kNumber;
    if (less("maxLength", "minLength")) apart |= kString;
    if (less("maxItems", "minItems")) apart |= kArray;
    if (less("maxProperties", "minProperties") || properties_apart(a, b, depth)) apart |= kObject;
    return apart;
  }

  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static double most_of(const Schema& schema, const char* key) {
    const Schema* bound = find(schema, key);
    return bound && bound->is_number() ? bound->get<double>() : kInfinity;
  }
  static double least_of(const Schema& schema, const char* key) {
    const Schema* bound = find(schema, key);
    return bound && bound->is_number() ? bound->get<double>() : std::numeric_limits<double>::quiet_NaN();
  }

  // A property that one of them needs has values in each that exclude each other.
  bool properties_apart(const Schema& a, const Schema& b, int depth) {
    for (const Schema* schema : {&a, &b}) {
      const Schema* required = find(*schema, "required");
      if (!required || !required->is_array()) continue;
      for (const Schema& name : *required)
        if (name.is_string() && holds(property(a, name), property(b, name), kAny, depth + 1)) return true;
    }
    return false;
  }
  static const Schema& property(const Schema& schema, const Schema& name) {
    static const Schema anything = true;
    if (const Schema* properties = find(schema, "properties"))
      if (const Schema* found = find(*properties, name.get_ref<const std::string&>())) return *found;
    if (find(schema, "patternProperties")) return anything;  // its name may match
    const Schema* others = find(schema, "additionalProperties");
    return others ? *others : anything;
  }

  const Schema& root_;
  int questions_ = 0;
};

// ---- the opposite of a schema

// What satisfies within and not schema; none: it has no form. within is what stands around the schema.
std::optional<Schema> opposite(const Schema& schema, const Schema& within);

std::optional<Schema> opposite_of_type(const Schema& type) {
  Schema others = Schema::array();
  const std::vector<Schema> names = type.is_array() ? std::vector<Schema>(type.begin(), type.end()) : std::vector{type};
  // Numbers that are no integers have no name.
  if (std::ranges::find(names, Schema("integer")) != names.end()) return std::nullopt;
  const unsigned kinds = kinds_named(type);
  for (const char* name : {"null", "boolean", "number", "string", "array", "object"})
    if ((kinds & kind_named(name)) == 0) others.push_back(name);
  if (others.empty()) return Schema(false);
  return Schema{{"type", others}};
}

// Integers between the listed ones.
std::optional<Schema> integers_but(const std::vector<Schema>& values) {
  constexpr std::int64_t kSafe = std::int64_t{1} << 53;
  std::set<std::int64_t> left_out;
  for (const Schema& value : values) {
    if (value.is_number_float() && value != std::floor(value.get<double>())) continue;
    if (!value.is_number()) continue;  // no integer at all
    if (std::abs(value.get<double>()) > static_cast<double>(kSafe)) return std::nullopt;
    left_out.insert(value.get<std::int64_t>());
  }
  Schema ranges = Schema::array();
  std::optional<std::int64_t> low;
  for (const std::int64_t value : left_out) {
    Schema range = {{"type", "integer"}, {"maximum", value - 1}};
    if (low) range["minimum"] = *low;
    if (!low || *low < value) ranges.push_back(range);
    low = value + 1;
  }
  Schema last = {{"type", "integer"}};
  if (low) last["minimum"] = *low;
  ranges.push_back(last);
  return Schema{{"anyOf", ranges}};
}

std::optional<Schema> opposite_of_values(const std::vector<Schema>& values, const Schema& within) {
  const auto is_left_out = [&](const Schema& value) { return std::ranges::find(values, value) != values.end(); };
  std::optional<std::vector<Schema>> known = listed_values(within);
  const Schema* type = find(within, "type");
  if (!known && type && *type == "boolean") known = {true, false};
  if (!known && type && (kinds_named(*type) & kNull) == 0 && values == std::vector<Schema>{nullptr})
    return Schema(true);
  if (!known && type && *type == "integer") return integers_but(values);
  if (!known) return std::nullopt;
  std::erase_if(*known, is_left_out);
  return known->empty() ? Schema(false) : Schema{{"enum", *known}};
}

// Of one of required, properties that must be there.
Schema opposite_of_required(const Schema& names) {
  Schema options = Schema::array();
  for (const Schema& name : names)
    options.push_back({{"type", "object"}, {"properties", {{name.get<std::string>(), false}}}});
  return options.empty() ? Schema(false) : Schema{{"anyOf", options}};
}

// Of a bound, for values of the one kind that it speaks of: all others satisfy it, so their opposite is nothing.
std::optional<Schema> opposite_of_bound(const std::string& key, const Schema& bound) {
  struct Pair {
    std::string_view key, type, other;
    int step;
  };
  static constexpr Pair kPairs[] = {{"minimum", "number", "exclusiveMaximum", 0},
                                    {"maximum", "number", "exclusiveMinimum", 0},
                                    {"exclusiveMinimum", "number", "maximum", 0},
                                    {"exclusiveMaximum", "number", "minimum", 0},
                                    {"minLength", "string", "maxLength", -1},
                                    {"maxLength", "string", "minLength", 1},
                                    {"minItems", "array", "maxItems", -1},
                                    {"maxItems", "array", "minItems", 1},
                                    {"minProperties", "object", "maxProperties", -1},
                                    {"maxProperties", "object", "minProperties", 1}};
  const auto pair = std::ranges::find(kPairs, key, &Pair::key);
  if (pair == std::end(kPairs) || !bound.is_number()) return std::nullopt;
  Schema other = bound;
  if (pair->step != 0) {
    if (!bound.is_number_integer() || bound < 0 || bound > INT32_MAX) return std::nullopt;
    if (pair->step < 0 && bound == 0) return Schema(false);
    other = bound.get<std::int64_t>() + pair->step;
  }
  return Schema{{"type", pair->type}, {std::string(pair->other), other}};
}

// One of all, or all of one: each has to have an opposite.
std::optional<Schema> opposite_of_many(const Schema& schemas, const char* joined, const Schema& within) {
  Schema options = Schema::array();
  for (const Schema& one : schemas) {
    std::optional<Schema> other = opposite(one, within);
    if (!other) return std::nullopt;
    options.push_back(*std::move(other));
  }
  return Schema{{joined, options}};
}

std::optional<Schema> opposite(const Schema& schema, const Schema& within) {
  if (schema.is_boolean()) return Schema(!schema.get<bool>());
  if (!schema.is_object()) return std::nullopt;
  std::vector<std::string> keys;
  for (const auto& [key, value] : schema.items())
    if (!is_annotation(key)) keys.push_back(key);
  if (keys.empty()) return Schema(false);
  if (keys.size() > 1) {  // each key by itself, and one of the opposites
    Schema parts = Schema::array();
    for (const std::string& key : keys) parts.push_back({{key, schema[key]}});
    return opposite_of_many(parts, "anyOf", within);
  }
  const std::string& key = keys.front();
  const Schema& value = schema[key];
  if (key == "not") return value;
  if (key == "type") return opposite_of_type(value);
  if (key == "const" || key == "enum")
    if (const auto values = listed_values(schema)) return opposite_of_values(*values, within);
  if (key == "required" && value.is_array() &&
      std::ranges::all_of(value, [](const Schema& v) { return v.is_string(); }))
    return opposite_of_required(value);
  if (key == "anyOf" && value.is_array()) return opposite_of_many(value, "allOf", within);
  if (key == "allOf" && value.is_array()) return opposite_of_many(value, "anyOf", within);
  return opposite_of_bound(key, value);
}

// ---- the rewriting

class Rewriter {
 public:
  explicit Rewriter(const Schema& root) : root_(root), exclusion_(root_) {}

  void rewrite(Schema& schema, const std::string& place) {
    if (!schema.is_object()) return;
    take_not(schema, place);
    take_one_of(schema, place);
    take_names(schema, place);
    take_dependencies(schema);
    if (const Schema* unique = find(schema, "uniqueItems"); unique && *unique == false) schema.erase("uniqueItems");
    rewrite_below(schema, place);
  }

 private:
  [[noreturn]] static void refuse(const std::string& place, std::string why) {
    throw Error(ErrorCode::kUnsupported, format("schema, at {}: {}", place.empty() ? "its root" : place, why));
  }

  static void also(Schema& schema, Schema clause) {
    if (clause == true) return;
    Schema& all = schema["allOf"];
    if (all.is_null()) all = Schema::array();
    if (!all.is_array()) throw Error(ErrorCode::kUnsupported, "schema: allOf must be an array");
    all.push_back(std::move(clause));
  }

  static void take_not(Schema& schema, const std::string& place) {
    const Schema* found = find(schema, "not");
    if (!found) return;
    const Schema refused = *found;
    schema.erase("not");
    std::optional<Schema> clause = opposite(refused, schema);
    if (!clause)
      refuse(place,
             "not cannot be enforced here: it can of types, required, bounds, null, booleans, integers and "
             "values of an enum beside it");
    also(schema, *std::move(clause));
  }

  void take_one_of(Schema& schema, const std::string& place) {
    const Schema* found = find(schema, "oneOf");
    if (!found || !found->is_array() || found->empty()) return;
    const Schema options = *found;
    const Schema* type = find(schema, "type");  // of all options
    const unsigned among = type ? kinds_named(*type) : kAny;
    for (std::size_t i = 0; i < options.size(); ++i)
      for (std::size_t j = i + 1; j < options.size(); ++j)
        if (!exclusion_.holds(options[i], options[j], among))
          refuse(place,
                 format("oneOf cannot be enforced, for a value might satisfy its options {} and {} together: say "
                        "anyOf, or make them differ in a required property",
                        i + 1, j + 1));
    schema.erase("oneOf");
    if (schema.contains("anyOf"))
      also(schema, {{"anyOf", options}});
    else
      schema["anyOf"] = options;
  }

  // Names from a list are properties; names of a pattern are the only pattern.
  static void take_names(Schema& schema, const std::string& place) {
    const Schema* found = find(schema, "propertyNames");
    if (!found) return;
    const Schema names = *found;
    const Schema* others = find(schema, "additionalProperties");
    const Schema value = others ? *others : Schema(true);
    const bool has_properties = find(schema, "properties") || find(schema, "patternProperties");
    schema.erase("propertyNames");
    if (names == true || names == Schema{{"type", "string"}}) return;
    if (const auto listed = listed_values(names); listed && !find(schema, "patternProperties")) {
      Schema properties = Schema::object();
      if (const Schema* known = find(schema, "properties")) properties = *known;
      for (auto& [name, property] : properties.items())
        if (std::ranges::find(*listed, Schema(name)) == listed->end()) property = false;
      for (const Schema& name : *listed)
        if (name.is_string() && !properties.contains(name.get<std::string>()))
          properties[name.get<std::string>()] = value;
      schema["properties"] = properties;
    } else if (const Schema* pattern = find(names, "pattern");
               pattern && names_only_a_pattern(names) && !has_properties) {
      schema["patternProperties"] = {{pattern->get<std::string>(), value}};
    } else {
      refuse(place, "propertyNames can be enforced as an enum, or as a pattern without properties beside it");
    }
    schema["additionalProperties"] = false;
  }
  static bool names_only_a_pattern(const Schema& names) {
    return std::ranges::all_of(names.items(), [](const auto& item) {
      return is_annotation(item.key()) || (item.key() == "pattern" && item.value().is_string()) ||
             (item.key() == "type" && item.value() == "string");
    });
  }

  // With a property come others, or a schema: the property is missing, or they hold.
  static void take_dependencies(Schema& schema) {
    for (const char* key : {"dependentRequired", "dependentSchemas", "dependencies"}) {
      const Schema* found = find(schema, key);
      if (!found || !found->is_object()) continue;
      const Schema dependencies = *found;
      schema.erase(key);
      for (const auto& [name, needed] : dependencies.items()) {
        Schema present = {{"required", Schema::array({name})}};
        if (needed.is_array())
          present["required"].insert(present["required"].end(), needed.begin(), needed.end());
        else
          present["allOf"] = Schema::array({needed});
        also(schema, {{"anyOf", {{{"properties", {{name, false}}}}, present}}});
      }
    }
  }

  void rewrite_below(Schema& schema, const std::string& place) {
    for (auto& [key, value] : schema.items()) {
      const std::string at = place + "/" + key;
      constexpr std::array kMaps = {"properties", "patternProperties", "$defs", "definitions"};
      constexpr std::array kOnes = {"items", "additionalProperties", "additionalItems"};
      constexpr std::array kLists = {"anyOf", "allOf", "prefixItems", "items"};
      if (value.is_object() && std::ranges::find(kMaps, key) != kMaps.end())
        for (auto& [name, one] : value.items()) rewrite(one, at + "/" + name);
      else if (value.is_object() && std::ranges::find(kOnes, key) != kOnes.end())
        rewrite(value, at);
      else if (value.is_array() && std::ranges::find(kLists, key) != kLists.end())
        for (std::size_t i = 0; i < value.size(); ++i) rewrite(value[i], format("{}/{}", at, i));
    }
  }

  const Schema root_;  // as it was given, which references mean
  Exclusion exclusion_;
};

}  // namespace

OrderedJson enforceable_schema(OrderedJson schema) {
  Rewriter(schema).rewrite(schema, "");
  return schema;
}

}  // namespace tandem
