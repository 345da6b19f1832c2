// Stands where TensorRT stands: finds the plugin's creator as it loads a library, and calls the plugin as a builder and a
// runtime do. The headers are TensorRT's own; what would be in its library is here, so far as the plugin needs it.

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

std::string log_lines;

struct Logger final : ILogger {
  void log(Severity severity, AsciiChar const* message) noexcept override {
    log_lines += std::to_string(static_cast<int>(severity)) + " " + message + "\n";
  }
} logger;

struct Finder final : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
} finder;

struct Dimension final : IDimensionExpr, apiv::VDimensionExpr {
  Dimension(int64_t value, bool constant) : value(value), constant(constant) { mImpl = this; }
  bool isConstant() const override { return constant; }
  int64_t getConstantValue() const override { return constant ? value : INT64_MIN; }
  bool isSizeTensor() const override { return false; }
  int64_t value;  // what it is in this call, known to the plugin or not
  bool constant;
};

int64_t value_of(const IDimensionExpr& dimension) { return static_cast<const Dimension&>(dimension).value; }

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

struct Builder final : IExprBuilder, apiv::VExprBuilder {
  Builder() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return add(value, true); }
  const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    const int64_t a = value_of(first), b = value_of(second);
    const bool known = static_cast<const Dimension&>(first).constant && static_cast<const Dimension&>(second).constant;
    switch (operation) {
      case DimensionOperation::kSUM: return add(a + b, known);
      case DimensionOperation::kSUB: return add(a - b, known);
      case DimensionOperation::kFLOOR_DIV: return add(floor_div(a, b), known);
      default: return nullptr;
    }
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override { return nullptr; }
  const IDimensionExpr* add(int64_t value, bool known) {
    made.push_back(std::make_unique<Dimension>(value, known));
    return made.back().get();
  }
  std::vector<std::unique_ptr<Dimension>> made;
};

IPluginV3& plugin_of(void* plugin) { return *static_cast<IPluginV3*>(plugin); }
IPluginV3OneBuild& build_of(void* plugin) {
  return *static_cast<IPluginV3OneBuild*>(plugin_of(plugin).getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime_of(void* plugin) {
  return *static_cast<IPluginV3OneRuntime*>(plugin_of(plugin).getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

Dims dims(std::initializer_list<int64_t> sizes) {
  Dims result{};
  for (const int64_t size : sizes) result.d[result.nbDims++] = size;
  return result;
}

PluginTensorDesc tensor(Dims sizes, int type, int format = static_cast<int>(TensorFormat::kLINEAR)) {
  return {sizes, static_cast<DataType>(type), static_cast<TensorFormat>(format), 1.0f};
}

DynamicPluginTensorDesc dynamic(PluginTensorDesc desc, Dims least = {}, Dims most = {}, Dims usual = {}) {
  DynamicPluginTensorDesc result{};
  result.desc = desc;
  result.min = least;
  result.max = most;
  result.opt = usual;
  return result;
}

constexpr int kFloat = static_cast<int>(DataType::kFLOAT);

}  // namespace

extern "C" {

nvinfer1::ILogger* getLogger() noexcept { return nullptr; }
void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

struct Field {
  const char* name;
  const void* data;
  int32_t type, length;
};

IPluginCreatorV3One* the_creator() {
  setLoggerFinder(&finder);
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = getCreators(count);
  return count == 1 ? static_cast<IPluginCreatorV3One*>(creators[0]) : nullptr;
}

// Its interface, name, version, namespace, and fields as name:type.
const char* test_creator() {
  static std::string text;
  IPluginCreatorV3One& creator = *the_creator();
  text = std::string(creator.getInterfaceInfo().kind) + "|" + creator.getPluginName() + "|" + creator.getPluginVersion() +
         "|" + creator.getPluginNamespace();
  const PluginFieldCollection& fields = *creator.getFieldNames();
  for (int32_t at = 0; at < fields.nbFields; ++at)
    text += std::string("|") + fields.fields[at].name + ":" + std::to_string(static_cast<int>(fields.fields[at].type));
  return text.c_str();
}

void* test_create(const Field* fields, int count, int phase) {
  std::vector<PluginField> given;
  for (int at = 0; at < count; ++at)
    given.emplace_back(fields[at].name, fields[at].data, static_cast<PluginFieldType>(fields[at].type), fields[at].length);
  PluginFieldCollection collection{};
  collection.nbFields = count;
  collection.fields = given.data();
  return the_creator()->createPlugin("log_mel", &collection, static_cast<TensorRTPhase>(phase));
}

// The plugin's name, version, namespace and metadata.
const char* test_identity(void* plugin) {
  static std::string text;
  auto& core = *static_cast<IPluginV3OneCore*>(plugin_of(plugin).getCapabilityInterface(PluginCapabilityType::kCORE));
  text = std::string(core.getPluginName()) + "|" + core.getPluginVersion() + "|" + core.getPluginNamespace() + "|" +
         build_of(plugin).getMetadataString();
  return text.c_str();
}

void test_destroy(void* plugin) { delete static_cast<IPluginV3*>(plugin); }
void* test_clone(void* plugin) { return plugin_of(plugin).clone(); }
void* test_attach(void* plugin) { return runtime_of(plugin).attachToContext(nullptr); }

int test_fields(void* plugin, Field* fields, int room) {
  const PluginFieldCollection& collection = *runtime_of(plugin).getFieldsToSerialize();
  for (int at = 0; at < collection.nbFields && at < room; ++at) {
    const PluginField& field = collection.fields[at];
    fields[at] = {field.name, field.data, static_cast<int32_t>(field.type), field.length};
  }
  return collection.nbFields;
}

// `known`: whether the sizes are constants of the network. `rank` is 2 but in tests of refusal.
int test_shapes(void* plugin, int rank, int known, int64_t batch, int64_t samples, int64_t* out) {
  Builder builder;
  const Dimension first(batch, known != 0), second(samples, known != 0);
  DimsExprs in{}, result{};
  in.nbDims = rank;
  in.d[0] = &first;
  in.d[1] = in.d[2] = &second;
  const int code = build_of(plugin).getOutputShapes(&in, 1, nullptr, 0, &result, 1, builder);
  if (code == 0) {
    if (result.nbDims != 3) return -1;
    for (int axis = 0; axis < 3; ++axis) out[axis] = value_of(*result.d[axis]);
  }
  return code;
}

int test_output_type(void* plugin, int input_type) {
  DataType in = static_cast<DataType>(input_type), out = DataType::kINT64;
  const int code = build_of(plugin).getOutputDataTypes(&out, 1, &in, 1);
  return code == 0 ? static_cast<int>(out) : -code;
}

int test_supports(void* plugin, int at, int in_type, int in_format, int out_type, int out_format) {
  const DynamicPluginTensorDesc tensors[] = {dynamic(tensor(dims({-1, -1}), in_type, in_format)),
                                             dynamic(tensor(dims({-1, -1, 80}), out_type, out_format))};
  return build_of(plugin).supportsFormatCombination(at, tensors, 1, 1);
}

int test_outputs(void* plugin) { return build_of(plugin).getNbOutputs(); }

int test_configure(void* plugin, const int64_t* least, const int64_t* usual, const int64_t* most) {
  const auto in = dynamic(tensor(dims({-1, -1}), kFloat), dims({least[0], least[1]}), dims({most[0], most[1]}),
                          dims({usual[0], usual[1]}));
  const auto out = dynamic(tensor(dims({-1, -1, -1}), kFloat));
  return build_of(plugin).configurePlugin(&in, 1, &out, 1);
}

size_t test_workspace(void* plugin, int64_t batch, int64_t samples, int out_type, int known) {
  const Dims largest = dims({batch, samples}), named = known ? largest : dims({-1, -1});
  const auto in = dynamic(tensor(named, kFloat), largest, largest, largest);
  const auto out = dynamic(tensor(dims({-1, -1, -1}), out_type));
  return build_of(plugin).getWorkspaceSize(&in, 1, &out, 1);
}

int test_shape_change(void* plugin, int64_t batch, int64_t samples, int64_t frames, int64_t mels, int out_type) {
  const auto in = tensor(dims({batch, samples}), kFloat), out = tensor(dims({batch, frames, mels}), out_type);
  return runtime_of(plugin).onShapeChange(&in, 1, &out, 1);
}

int test_enqueue(void* plugin, int64_t batch, int64_t samples, int64_t frames, int64_t mels, int out_type, const void* pcm,
                 void* log_mel, void* workspace, size_t stream) {
  const auto in = tensor(dims({batch, samples}), kFloat), out = tensor(dims({batch, frames, mels}), out_type);
  const void* inputs[] = {pcm};
  void* outputs[] = {log_mel};
  return runtime_of(plugin).enqueue(&in, &out, inputs, outputs, workspace, reinterpret_cast<cudaStream_t>(stream));
}

const char* test_log() {  // since the last time
  static std::string last;
  last.swap(log_lines);
  log_lines.clear();
  return last.c_str();
}

}  // extern "C"
