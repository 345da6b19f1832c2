// The node LogMel (version 1, namespace edgepin) as a plugin of TensorRT: float32 PCM (N, samples) of full scale 1 to the
// log-mel (N, frames, mels), in float32 or float16.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <memory>

#include "log_mel_definition.h"
#include "log_mel_device.h"

namespace edgepin {

constexpr const char* kPluginName = "LogMel";
constexpr const char* kPluginVersion = "1";
constexpr const char* kPluginNamespace = "edgepin";

class LogMelPlugin final : public nvinfer1::IPluginV3,
                           public nvinfer1::IPluginV3OneCore,
                           public nvinfer1::IPluginV3OneBuild,
                           public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit LogMelPlugin(std::shared_ptr<const LogMelDefinition> definition);

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  nvinfer1::AsciiChar const* getPluginName() const noexcept override { return kPluginName; }
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kPluginVersion; }
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                          nvinfer1::DynamicPluginTensorDesc const* out, int32_t outputs) noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs, nvinfer1::DataType const* input_types,
                             int32_t inputs) const noexcept override;
  int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t inputs, nvinfer1::DimsExprs const* shape_in,
                          int32_t shape_inputs, nvinfer1::DimsExprs* out, int32_t outputs,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t at, nvinfer1::DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override;
  int32_t getNbOutputs() const noexcept override { return 1; }
  size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                          nvinfer1::DynamicPluginTensorDesc const* out, int32_t outputs) const noexcept override;
  char const* getMetadataString() noexcept override { return definition_->attributes().spec.c_str(); }

  int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t inputs, nvinfer1::PluginTensorDesc const* out,
                        int32_t outputs) noexcept override;
  int32_t enqueue(nvinfer1::PluginTensorDesc const* in_desc, nvinfer1::PluginTensorDesc const* out_desc,
                  void const* const* in, void* const* out, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  LogMelDevice& device();

  std::shared_ptr<const LogMelDefinition> definition_;
  // Of this plugin alone, for it is one execution context's: calls of a context follow each other, and so its launches
  // may use the same memory.
  std::unique_ptr<LogMelDevice> device_;
  std::array<nvinfer1::PluginField, 5> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

class LogMelPluginCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  LogMelPluginCreator();

  nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
  nvinfer1::AsciiChar const* getPluginName() const noexcept override { return kPluginName; }
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kPluginVersion; }
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

 private:
  std::array<nvinfer1::PluginField, 5> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace edgepin
