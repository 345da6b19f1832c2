// The plan of the transform: its radices, where every point lies between them, and in which order the passes go.
#include <algorithm>
#include <cmath>

#include "plan.h"

namespace edgepin {
namespace {

constexpr double kPi = 3.14159265358979323846;

void push_turn(std::vector<float>& to, double turns) {
  to.push_back(static_cast<float>(std::cos(2 * kPi * turns)));
  to.push_back(static_cast<float>(std::sin(2 * kPi * turns)));
}

// The radices of the passes, the last one's last. Few passes are fast; the last handles two blocks at a time, so that
// it has to be small, and 4 is best.
std::vector<std::size_t> factorize(std::size_t points) {
  std::vector<std::size_t> best;
  for (const std::size_t last : {4, 5, 3, 2, 1}) {
    if (points % last) continue;
    std::vector<std::size_t> radices;
    std::size_t rest = points / last;
    for (const std::size_t radix : {8, 5, 4, 3, 2})
      for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    for (std::size_t radix = 7; rest > 1; radix += 2)
      for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    radices.push_back(last);
    if (best.empty() || radices.size() < best.size()) best = radices;
  }
  return best;
}

}  // namespace

void Plan::build_transform() {
  const std::size_t lanes = kernel_->lanes, points = tables_.points;
  const std::vector<std::size_t> radices = factorize(points);
  const std::size_t last = radices.back();

  // After the first pass the points lie in groups. One point of padding a group: the points of a butterfly in the first
  // pass would else be a multiple of 4096 bytes apart, all in one set of the cache.
  const std::size_t group = radices.size() > 1 ? points / radices[0] : points;
  const auto place = [&](std::size_t point) { return 2 * lanes * (point + point / group); };
  for (std::size_t point = 0; point < points; ++point) places_.push_back(place(point));
  tables_.places = places_.data();
  tables_.work_points = 2 * lanes * (points + points / group);

  const std::size_t passes = radices.size() - 1, groups = points / group;
  std::vector<std::vector<Pass>> passes_of(groups);  // of each group, all but the first
  std::size_t size = points, largest_radix = 1;
  twiddles_.reserve(2 * passes);
  for (std::size_t i = 0; i < passes; ++i) {
    const std::size_t radix = radices[i], m = size / radix;
    std::vector<float> twiddles, roots;
    for (std::size_t j = 0; j < m; ++j)
      for (std::size_t q = 1; q < radix; ++q) push_turn(twiddles, -static_cast<double>(j * q) / size);
    for (std::size_t q = 0; q < radix; ++q) push_turn(roots, -static_cast<double>(q) / radix);
    twiddles_.push_back(std::move(twiddles));
    twiddles_.push_back(std::move(roots));
    Pass pass{i == 0, radix, 0, 1, 0, m, place(m), twiddles_[2 * i].data(), twiddles_[2 * i + 1].data()};
    if (i == 0) {
      passes_.push_back(pass);
    } else {
      pass.groups = group / size;
      pass.stride = 2 * lanes * size;
      pass.points = 2 * lanes * m;
      for (std::size_t g = 0; g < groups; ++g) {
        pass.at = place(g * group);
        passes_of[g].push_back(pass);
      }
    }
    size = m;
    largest_radix = std::max(largest_radix, radix);
  }
  tables_.last_radix = last;

  // Blocks of the last pass: block b holds the bins first + blocks q.
  const std::size_t blocks = points / last;
  std::vector<std::size_t> block_of(blocks);  // by its first bin
  for (std::size_t b = 0; b < blocks; ++b) {
    std::size_t rest = b, below = blocks, weight = 1, bin = 0;
    for (std::size_t i = 0; i < passes; ++i) {
      below /= radices[i];
      bin += rest / below * weight;
      rest %= below;
      weight *= radices[i];
    }
    block_of[bin] = b;
  }

  // Group g holds the bins that are g above a multiple of the number of groups, and so the mirrors of group groups - g.
  if (passes > 0) stages_.push_back({0, 1, 0, 0});
  turns_.reserve(2 * last * (blocks / 2 + 1));
  for (std::size_t g = 0; g <= groups / 2; ++g) {
    const std::size_t first_pass = passes_.size(), first_mirrors = mirrors_.size(), partner = (groups - g) % groups;
    passes_.insert(passes_.end(), passes_of[g].begin(), passes_of[g].end());
    if (partner != g) passes_.insert(passes_.end(), passes_of[partner].begin(), passes_of[partner].end());
    for (std::size_t bin = 0; bin <= blocks / 2; ++bin) {
      if (bin % groups != g && bin % groups != partner) continue;
      const std::size_t at = block_of[bin], mirror = block_of[(blocks - bin) % blocks];
      mirrors_.push_back({place(at * last), place(mirror * last), bin == 0, turns_.data() + turns_.size()});
      for (std::size_t q = 0; q < last; ++q) push_turn(turns_, 0.5 * (bin + blocks * q) / points);
    }
    stages_.push_back({first_pass, passes_.size(), first_mirrors, mirrors_.size()});
  }
  tables_.stages = stages_.data();
  tables_.num_stages = stages_.size();
  tables_.passes = passes_.data();
  tables_.mirrors = mirrors_.data();

  // Where the power of each bin is after the last pass; that of bin `points` lies in the imaginary part of bin 0.
  for (std::size_t bin = 0; bin < points; ++bin)
    power_places_.push_back(place(block_of[bin % blocks] * last + bin / blocks));
  power_places_.push_back(power_places_[0] + lanes);

  const std::size_t mels = round_up(options_.num_mels, lanes);
  work_floats_ = tables_.work_points + lanes * std::max(mels, 2 * largest_radix);
}

}  // namespace edgepin
