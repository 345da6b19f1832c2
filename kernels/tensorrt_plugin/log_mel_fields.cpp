#include "log_mel_fields.h"

#include <cstring>
#include <stdexcept>

namespace edgepin {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

constexpr const char *kSpec = "spec", *kWindow = "window", *kFirsts = "mel_firsts", *kCounts = "mel_counts",
                     *kWeights = "mel_weights";

template <typename Values>
PluginField field(const char* name, const Values& values, PluginFieldType type) {
  return {name, values.data(), type, static_cast<int32_t>(values.size())};
}

const PluginField& find(const PluginFieldCollection& fields, const char* name, PluginFieldType type) {
  const PluginField* found = nullptr;
  for (int32_t at = 0; at < fields.nbFields; ++at) {
    const PluginField& field = fields.fields[at];
    if (field.name == nullptr || std::strcmp(field.name, name) != 0) continue;
    if (found != nullptr) throw std::invalid_argument(std::string("the attribute ") + name + " is there twice");
    found = &field;
  }
  if (found == nullptr)
    throw std::invalid_argument(std::string("the attribute ") + name + " is missing; write the graph anew with this EdgePIN");
  if (found->type != type || found->length < 0 || (found->length > 0 && found->data == nullptr))
    throw std::invalid_argument(std::string("the attribute ") + name + " is of another type");
  return *found;
}

template <typename T>
std::vector<T> values_of(const PluginFieldCollection& fields, const char* name, PluginFieldType type) {
  const PluginField& field = find(fields, name, type);
  std::vector<T> values(static_cast<size_t>(field.length));
  // An engine's fields may lie anywhere in its bytes.
  if (!values.empty()) std::memcpy(values.data(), field.data, sizeof(T) * values.size());
  return values;
}

std::string text_of(const PluginFieldCollection& fields, const char* name) {
  const std::vector<char> characters = values_of<char>(fields, name, PluginFieldType::kCHAR);
  std::string text(characters.begin(), characters.end());
  // The parser of ONNX appends one.
  if (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

}  // namespace

std::array<PluginField, 5> fields_of(const LogMelAttributes& attributes) {
  return {field(kSpec, attributes.spec, PluginFieldType::kCHAR),
          field(kWindow, attributes.window, PluginFieldType::kFLOAT32),
          field(kFirsts, attributes.mel_firsts, PluginFieldType::kINT32),
          field(kCounts, attributes.mel_counts, PluginFieldType::kINT32),
          field(kWeights, attributes.mel_weights, PluginFieldType::kFLOAT32)};
}

LogMelAttributes attributes_of(const PluginFieldCollection& fields) {
  return {text_of(fields, kSpec), values_of<float>(fields, kWindow, PluginFieldType::kFLOAT32),
          values_of<int32_t>(fields, kFirsts, PluginFieldType::kINT32),
          values_of<int32_t>(fields, kCounts, PluginFieldType::kINT32),
          values_of<float>(fields, kWeights, PluginFieldType::kFLOAT32)};
}

}  // namespace edgepin
