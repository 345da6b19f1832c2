#include "json_object.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

namespace edgepin {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {}

  std::map<std::string, JsonValue> object() {
    std::map<std::string, JsonValue> values;
    expect('{');
    if (!take('}')) {
      do {
        std::string key = string();
        expect(':');
        if (!values.emplace(key, value()).second) fail("the key " + key + " twice");
      } while (take(','));
      expect('}');
    }
    skip_space();
    if (at_ != text_.size()) fail("text behind the object");
    return values;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument("the JSON has " + what + " at character " + std::to_string(at_));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
  }

  bool take(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("no ") + wanted);
  }

  std::string string() {
    expect('"');
    const size_t end = text_.find_first_of("\"\\", at_);
    if (end == std::string::npos || text_[end] != '"') fail("a string with an escape or without an end");
    const std::string found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }

  JsonValue value() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '"') return string();
    if (word("null")) return nullptr;
    if (word("true")) return true;
    if (word("false")) return false;
    double number = 0.0;
    const char* first = text_.data() + at_;
    const auto [end, error] = std::from_chars(first, text_.data() + text_.size(), number);
    // from_chars also reads "inf" and "nan".
    if (error != std::errc() || !std::isfinite(number)) fail("no finite number, string, boolean or null");
    at_ += static_cast<size_t>(end - first);
    return number;
  }

  bool word(const std::string& wanted) {
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
  }

  const std::string& text_;
  size_t at_ = 0;
};

}  // namespace

std::map<std::string, JsonValue> parse_json_object(const std::string& text) { return Reader(text).object(); }

}  // namespace edgepin
