// The attributes of the node as fields of TensorRT, by name, there and back. An engine keeps them, so that a plugin made
// from an engine is the one that was built into it.
#pragma once

#include <NvInferRuntime.h>

#include <array>

#include "log_mel_definition.h"

namespace edgepin {

// They point into `attributes`, which must outlive them.
std::array<nvinfer1::PluginField, 5> fields_of(const LogMelAttributes& attributes);

// Throws std::invalid_argument: a field is missing, or twice there, or of another type. Fields of other names are left alone.
LogMelAttributes attributes_of(const nvinfer1::PluginFieldCollection& fields);

}  // namespace edgepin
