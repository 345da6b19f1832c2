// The JSON of a LogMelSpec: one object of strings, numbers, booleans and nulls.
#pragma once

#include <map>
#include <string>
#include <variant>

namespace edgepin {

using JsonValue = std::variant<std::nullptr_t, bool, double, std::string>;

// Throws std::invalid_argument for anything else: nested values, escapes in strings, keys that come twice, text behind it.
std::map<std::string, JsonValue> parse_json_object(const std::string& text);

}  // namespace edgepin
