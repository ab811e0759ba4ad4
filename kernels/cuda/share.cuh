// How persistent clusters share the work of a multiplication whatever its shape ("stream-K").
//
// The groups of K of the first `cut` tiles, tile after tile, are one sequence, of which every cluster adds up an equal share. A tile
// that lies in several shares is finished by the cluster with its last groups, to which the others leave their sums. A cluster
// walks its share backwards: what it owes others it computes first, what it needs of others last, and only from clusters that were
// started before it. The other tiles are taken whole, one a cluster and round.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define FIREQ_ANYWHERE __device__ __forceinline__
#else
#define FIREQ_ANYWHERE inline  // for its test on the host
#endif

namespace fireq {

struct Shares {
  int tiles, groups, clusters, cut;
  /// The first group of a cluster's share in the sequence of all.
  FIREQ_ANYWHERE int begin(int cluster) const {
    return static_cast<int>(static_cast<int64_t>(cut) * groups * cluster / clusters);
  }
};

/// A cluster's work, tile by tile: groups [group, end) of a tile.
struct ShareWalk {
  const Shares shares;
  int cluster, first;  // of the share
  int tile, group, end;

  FIREQ_ANYWHERE ShareWalk(const Shares& shares, int cluster) : shares(shares), cluster(cluster), first(shares.begin(cluster)) {
    const int last = shares.begin(cluster + 1);
    tile = (last - 1) / shares.groups;
    enter(last - tile * shares.groups);
    if (shares.cut == 0) enterWhole(cluster);
  }
  FIREQ_ANYWHERE void enter(int last) {
    const int before = first - tile * shares.groups;  // groups of the tile that are other clusters'
    group = before > 0 ? before : 0, end = last;
  }
  FIREQ_ANYWHERE void enterWhole(int next) { tile = next, group = 0, end = shares.groups; }
  FIREQ_ANYWHERE void next() {
    if (tile >= shares.cut) return enterWhole(tile + shares.clusters);
    if (tile * shares.groups <= first) return enterWhole(shares.cut + cluster);
    tile--;
    enter(shares.groups);
  }
  FIREQ_ANYWHERE bool done() const { return tile >= shares.tiles; }
  FIREQ_ANYWHERE bool leavesSum() const { return end < shares.groups; }
  /// Whether the cluster before leaves a sum for this tile; others before that one may, too.
  FIREQ_ANYWHERE bool takesSum() const { return group > 0; }
  /// Calls f(other) for those others.
  template <class F>
  FIREQ_ANYWHERE void forOthers(F f) const {
    for (int other = cluster - 2; shares.begin(other + 1) > tile * shares.groups; other--) f(other);
  }
};

}  // namespace fireq
