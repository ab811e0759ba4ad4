// share.cuh on the host: clusters add up every group of every tile once, and sums find the cluster that finishes their tile.
// c++ -std=c++17 -Wall share_test.cpp -o share_test && ./share_test
#include "../share.cuh"

#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

using namespace fireq;

static int failures = 0;

static void expect(bool holds, const char* what, const Shares& s) {
  if (holds || failures++ > 20) return;
  std::printf("%d tiles of %d groups, %d cut, on %d clusters: expected %s\n", s.tiles, s.groups, s.cut, s.clusters, what);
}

static void check(const Shares& s) {
  std::vector<int> added(static_cast<size_t>(s.tiles) * s.groups);
  std::map<int, std::set<int>> kept, taken;  // tile → clusters that leave a sum for it; whose sums its finisher takes
  std::map<int, int> finished;               // tile → cluster
  for (int cluster = 0; cluster < s.clusters; cluster++) {
    int sums = 0, steps = 0;
    for (ShareWalk walk(s, cluster); !walk.done() && steps <= s.tiles + 1; walk.next(), steps++) {
      expect(walk.tile >= 0 && 0 <= walk.group && walk.group < walk.end && walk.end <= s.groups, "groups of a tile", s);
      for (int g = walk.group; g < walk.end; g++) added[walk.tile * s.groups + g]++;
      if (walk.leavesSum()) {
        expect(steps == 0 && ++sums == 1, "a sum for others first, and one at most", s);
        kept[walk.tile].insert(cluster);
        continue;
      }
      expect(finished.emplace(walk.tile, cluster).second, "one cluster to finish a tile", s);
      if (!walk.takesSum()) continue;
      auto take = [&](int other) {
        expect(other >= 0 && other < cluster, "sums of clusters that were started before", s);
        taken[walk.tile].insert(other);
      };
      take(cluster - 1);
      walk.forOthers(take);
    }
    expect(steps <= s.tiles + 1, "a walk that ends", s);
  }
  for (int count : added) expect(count == 1, "every group once", s);
  expect(static_cast<int>(finished.size()) == s.tiles, "every tile finished", s);
  expect(kept == taken, "every kept sum taken, and no other", s);
}

int main() {
  for (int tiles = 1; tiles <= 12; tiles++)
    for (int groups = 1; groups <= 9; groups++)
      for (int clusters = 1; clusters <= 9; clusters++)
        for (int cut = 0; cut <= tiles; cut++)
          if (cut == 0 ? clusters <= tiles : cut * groups >= clusters) check({tiles, groups, clusters, cut});
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 300; i++) {
    const int tiles = 1 + static_cast<int>(random() % 2000), groups = 1 + static_cast<int>(random() % 120), clusters = 1 + static_cast<int>(random() % 66);
    const int cut = tiles < clusters ? tiles : tiles % clusters + clusters;
    if (cut * groups >= clusters && cut <= tiles) check({tiles, groups, clusters, cut});
  }
  if (failures == 0) std::puts("shares: all as expected");
  return failures != 0;
}
