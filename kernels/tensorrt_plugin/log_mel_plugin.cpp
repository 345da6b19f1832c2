#include "log_mel_plugin.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "log_mel_fields.h"
#include "plugin_log.h"

namespace edgepin {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kSuccess = 0, kFailure = 1;

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

void require_one_each(int32_t inputs, int32_t outputs) {
  require(inputs == 1 && outputs == 1, "the node has one input, pcm, and one output, log_mel");
}

const IDimensionExpr& present(const IDimensionExpr* expression) {
  if (expression == nullptr) throw std::runtime_error("TensorRT gives no expression for a dimension");
  return *expression;
}

// The largest that an input may be; without a profile, what it is.
int64_t largest(const DynamicPluginTensorDesc& tensor, int axis) {
  return std::max<int64_t>(tensor.desc.dims.nbDims == 2 ? tensor.desc.dims.d[axis] : -1,
                           tensor.max.nbDims == 2 ? tensor.max.d[axis] : -1);
}

}  // namespace

LogMelPlugin::LogMelPlugin(std::shared_ptr<const LogMelDefinition> definition)
    : definition_(std::move(definition)), fields_(fields_of(definition_->attributes())) {
  collection_.nbFields = static_cast<int32_t>(fields_.size());
  collection_.fields = fields_.data();
}

nvinfer1::IPluginCapability* LogMelPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* LogMelPlugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>("clone", nullptr, [&] { return new LogMelPlugin(definition_); });
}

int32_t LogMelPlugin::configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs, DynamicPluginTensorDesc const*,
                                      int32_t outputs) noexcept {
  return guarded<int32_t>("configurePlugin", kFailure, [&] {
    require_one_each(inputs, outputs);
    // A profile that lets in what the kernel cannot take fails here, and not at a capture months later.
    for (const Dims& bound : {in[0].min, in[0].opt, in[0].max}) {
      if (bound.nbDims == 2 && bound.d[0] >= 0 && bound.d[1] >= 0) definition_->check_sizes(bound.d[0], bound.d[1]);
    }
    return kSuccess;
  });
}

int32_t LogMelPlugin::getOutputDataTypes(DataType* output_types, int32_t outputs, DataType const* input_types,
                                         int32_t inputs) const noexcept {
  return guarded<int32_t>("getOutputDataTypes", kFailure, [&] {
    require_one_each(inputs, outputs);
    require(input_types[0] == DataType::kFLOAT, "pcm must be float32 of full scale 1; write the graph with samples=\"float32\"");
    output_types[0] = DataType::kFLOAT;
    return kSuccess;
  });
}

int32_t LogMelPlugin::getOutputShapes(nvinfer1::DimsExprs const* in, int32_t inputs, nvinfer1::DimsExprs const*, int32_t,
                                      nvinfer1::DimsExprs* out, int32_t outputs, nvinfer1::IExprBuilder& builder) noexcept {
  return guarded<int32_t>("getOutputShapes", kFailure, [&] {
    require_one_each(inputs, outputs);
    require(in[0].nbDims == 2, "pcm must be (N, samples)");
    const LogMelParams& p = definition_->params();
    const IDimensionExpr& samples = present(in[0].d[1]);
    if (samples.isConstant()) definition_->check_sizes(1, samples.getConstantValue());
    const auto constant = [&](int64_t value) -> const IDimensionExpr& { return present(builder.constant(value)); };
    const auto apply = [&](DimensionOperation operation, const IDimensionExpr& first, int64_t second) -> const IDimensionExpr& {
      return present(builder.operation(operation, first, constant(second)));
    };
    // As LogMelDefinition::frames, for samples that make at least one.
    const IDimensionExpr& covered =
        p.padding == kPaddingNone ? apply(DimensionOperation::kSUB, samples, p.frame_length) : samples;
    const IDimensionExpr& hops = apply(DimensionOperation::kFLOOR_DIV, covered, p.hop_length);
    out[0].nbDims = 3;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = p.drop_last_frame ? &hops : &apply(DimensionOperation::kSUM, hops, 1);
    out[0].d[2] = &constant(p.num_mels);
    return kSuccess;
  });
}

bool LogMelPlugin::supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                             int32_t outputs) noexcept {
  if (inputs != 1 || outputs != 1 || at < 0 || at > 1) return false;
  const PluginTensorDesc& tensor = tensors[at].desc;
  const bool typed = tensor.type == DataType::kFLOAT || (at == 1 && tensor.type == DataType::kHALF);
  return typed && tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

size_t LogMelPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t inputs, DynamicPluginTensorDesc const* out,
                                      int32_t outputs) const noexcept {
  if (inputs != 1 || outputs != 1) return 0;
  const int64_t batch = largest(in[0], 0), samples = largest(in[0], 1);
  if (batch < 0 || samples < 0) return 0;
  return staging_bytes(*definition_, batch, samples, out[0].desc.type == DataType::kHALF);
}

int32_t LogMelPlugin::onShapeChange(PluginTensorDesc const* in, int32_t inputs, PluginTensorDesc const*,
                                    int32_t outputs) noexcept {
  return guarded<int32_t>("onShapeChange", kFailure, [&] {
    require_one_each(inputs, outputs);
    require(in[0].dims.nbDims == 2, "pcm must be (N, samples)");
    definition_->check_sizes(in[0].dims.d[0], in[0].dims.d[1]);
    // While an engine is built, no context may have been attached before the kernel is timed.
    device();
    return kSuccess;
  });
}

int32_t LogMelPlugin::enqueue(PluginTensorDesc const* in_desc, PluginTensorDesc const* out_desc, void const* const* in,
                              void* const* out, void* workspace, cudaStream_t stream) noexcept {
  return guarded<int32_t>("enqueue", kFailure, [&] {
    const Dims& pcm = in_desc[0].dims;
    const Dims& log_mel = out_desc[0].dims;
    require(pcm.nbDims == 2, "pcm must be (N, samples)");
    require(device_ != nullptr, "it was attached to no execution context");
    // What the kernel will write must be what TensorRT has made room for.
    require(log_mel.nbDims == 3 && log_mel.d[0] == pcm.d[0] && log_mel.d[1] == definition_->frames(pcm.d[1]) &&
                log_mel.d[2] == definition_->params().num_mels,
            "log_mel has another shape than (N, frames, mels)");
    device_->enqueue(in[0], pcm.d[0], pcm.d[1], out[0], out_desc[0].type == DataType::kHALF, workspace, stream);
    return kSuccess;
  });
}

nvinfer1::IPluginV3* LogMelPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  return guarded<nvinfer1::IPluginV3*>("attachToContext", nullptr, [&] {
    auto attached = std::make_unique<LogMelPlugin>(definition_);
    attached->device();
    return attached.release();
  });
}

LogMelDevice& LogMelPlugin::device() {
  if (!device_) device_ = std::make_unique<LogMelDevice>(definition_);
  return *device_;
}

LogMelPluginCreator::LogMelPluginCreator() : fields_(fields_of({})) {
  for (nvinfer1::PluginField& field : fields_) field = {field.name, nullptr, field.type, 0};
  collection_.nbFields = static_cast<int32_t>(fields_.size());
  collection_.fields = fields_.data();
}

nvinfer1::IPluginV3* LogMelPluginCreator::createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const* fields,
                                                       nvinfer1::TensorRTPhase) noexcept {
  return guarded<nvinfer1::IPluginV3*>("createPlugin", nullptr, [&] {
    require(fields != nullptr, "there are no attributes");
    return new LogMelPlugin(std::make_shared<const LogMelDefinition>(attributes_of(*fields)));
  });
}

}  // namespace edgepin

// What TensorRT looks for in a library that it loads (IPluginRegistry::loadLibrary, trtexec --dynamicPlugins). Nothing
// registers itself besides: TensorRT refuses a library whose plugins are registered already.

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  edgepin::set_logger_finder(finder);
}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static edgepin::LogMelPluginCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
