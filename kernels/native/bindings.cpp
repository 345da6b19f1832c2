// edgepin_kernels._native: the plan as Python sees it. Arguments are validated by edgepin_kernels, not here, but for what would
// read or write out of bounds.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "plan.h"

namespace nb = nanobind;

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class Sample>
using Samples = nb::ndarray<const Sample, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
std::vector<T> to_vector(const Array<T>& array) {
  return {array.data(), array.data() + array.shape(0)};
}

template <class Choice>
Choice choose(const std::string& name, std::initializer_list<const char*> names) {
  int index = 0;
  for (const char* one : names) {
    if (name == one) return static_cast<Choice>(index);
    ++index;
  }
  throw std::invalid_argument("unknown choice " + name);
}

class PyPlan {
 public:
  PyPlan(const edgepin::PlanOptions& options, const std::string& kernel, std::size_t threads)
      : plan_(options, kernel, threads) {}

  const char* kernel() const { return plan_.kernel(); }

  // The largest |sample| of float samples, infinity if one is not finite.
  float largest(const Samples<float>& pcm) const {
    const nb::gil_scoped_release release;
    return plan_.largest(pcm.data(), pcm.size());
  }

  template <class Sample>
  void run(const Samples<Sample>& pcm, Out out) {
    if (out.shape(0) != pcm.shape(0) || out.shape(2) != plan_.num_mels() || out.shape(1) > plan_.max_frames(pcm.shape(1)))
      throw std::invalid_argument("out does not belong to the samples");
    const nb::gil_scoped_release release;
    plan_.run(pcm.data(), pcm.shape(0), pcm.shape(1), out.shape(1), out.data());
  }

 private:
  edgepin::Plan plan_;
};

}  // namespace

NB_MODULE(_native, module) {
  // A plan may still be in use by a thread that hangs when the interpreter ends; that is told elsewhere.
  nb::set_leak_warnings(false);
  module.def("available_kernels", [] {
    std::vector<std::string> names;
    for (const edgepin::Kernel* kernel : edgepin::available_kernels()) names.emplace_back(kernel->name);
    return names;
  });
  nb::class_<PyPlan>(module, "Plan")
      .def(
          "__init__",
          [](PyPlan* self, const std::string& kernel, std::size_t threads, std::size_t frame_length,
             std::size_t hop_length, std::size_t fft_length, std::size_t frame_lead, const std::string& padding,
             bool remove_dc, double preemphasis, bool preemphasis_over_utterance, const Array<double>& window,
             double int16_scale, double float_scale, const Array<std::int32_t>& mel_firsts,
             const Array<std::int32_t>& mel_counts, const Array<float>& mel_weights, const std::string& log,
             bool add_floor, double floor, double log_of_floor, double dynamic_range, double output_offset,
             double output_scale, const std::string& normalize, double std_guard) {
            edgepin::PlanOptions options{
                .frame_length = frame_length,
                .hop_length = hop_length,
                .fft_length = fft_length,
                .frame_lead = frame_lead,
                .padding = choose<edgepin::Padding>(padding, {"none", "zeros", "reflect"}),
                .remove_dc = remove_dc,
                .preemphasis = preemphasis,
                .preemphasis_over_utterance = preemphasis_over_utterance,
                .window = to_vector(window),
                .int16_scale = int16_scale,
                .float_scale = float_scale,
                .num_mels = mel_counts.shape(0),
                .mel_firsts = to_vector(mel_firsts),
                .mel_counts = to_vector(mel_counts),
                .mel_weights = to_vector(mel_weights),
                .log = choose<edgepin::Log>(log, {"none", "ln", "log10", "db"}),
                .add_floor = add_floor,
                .floor = static_cast<float>(floor),
                .log_of_floor = static_cast<float>(log_of_floor),
                .dynamic_range = static_cast<float>(dynamic_range),
                .output_offset = static_cast<float>(output_offset),
                .output_scale = static_cast<float>(output_scale),
                .normalize = choose<edgepin::Normalize>(normalize, {"none", "mean", "mean_std"}),
                .std_guard = std_guard,
            };
            new (self) PyPlan(options, kernel, threads);
          },
          nb::kw_only(), nb::arg("kernel"), nb::arg("threads"), nb::arg("frame_length"), nb::arg("hop_length"),
          nb::arg("fft_length"), nb::arg("frame_lead"), nb::arg("padding"), nb::arg("remove_dc"), nb::arg("preemphasis"),
          nb::arg("preemphasis_over_utterance"), nb::arg("window"), nb::arg("int16_scale"), nb::arg("float_scale"),
          nb::arg("mel_firsts"), nb::arg("mel_counts"), nb::arg("mel_weights"), nb::arg("log"), nb::arg("add_floor"),
          nb::arg("floor"), nb::arg("log_of_floor"), nb::arg("dynamic_range"), nb::arg("output_offset"),
          nb::arg("output_scale"), nb::arg("normalize"), nb::arg("std_guard"))
      .def_prop_ro("kernel", &PyPlan::kernel)
      .def("largest", &PyPlan::largest, nb::arg("pcm").noconvert())
      .def("run", &PyPlan::run<std::int16_t>, nb::arg("pcm").noconvert(), nb::arg("out").noconvert())
      .def("run", &PyPlan::run<float>, nb::arg("pcm").noconvert(), nb::arg("out").noconvert());
}
