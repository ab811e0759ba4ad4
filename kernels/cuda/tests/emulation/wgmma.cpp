#include "wgmma.cuh"

#include <deque>

namespace fireq::wgmma {

/// A thread's products, group after group; the last one is open.
using Groups = std::deque<std::vector<Product>>;
static std::vector<Groups> pending;  // by thread
static std::vector<uint32_t> waits;  // the number of a thread's next one
static std::vector<emulation::Meeting> warpgroups;

[[maybe_unused]] static const bool begins = [] {
  emulation::beforeCluster.push_back([] {
    pending.assign(emulation::clusterBlocks * emulation::blockThreads, Groups(1));
    waits.assign(pending.size(), 1);
    warpgroups.assign(pending.size() / 128, emulation::Meeting(128));
  });
  return true;
}();

static Groups& mine() { return pending[emulation::current->number]; }
void add(const Product& product) { mine().back().push_back(product); }
void commit() { mine().emplace_back(); }
void waitForProducts(size_t left) {
  Groups& groups = mine();
  while (groups.size() > left + 1) {
    for (const auto& product : groups.front()) product.carryOut(product.needed);
    groups.pop_front();
  }
  emulation::meetWarp({});  // the warp waits together
  ptx::races::end(ptx::races::product(waits[emulation::current->number]++), ptx::races::mine());
}
ptx::races::Copy products() { return ptx::races::product(waits[emulation::current->number]); }
const std::vector<emulation::Words>& meetWarpgroup(const emulation::Words& words) {
  const int thread = emulation::current->number;
  return emulation::meet(warpgroups[thread / 128], thread % 128, words, false);
}

}  // namespace fireq::wgmma
