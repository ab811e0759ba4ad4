// In which order blocks walk the tiles of a result.
#pragma once

namespace fireq {

/// Tile number → token tile and feature tile (of the whole cluster), sweeping all features for a few token tiles at a time.
struct TileOrder {
  int tokenTiles, featureTiles, perSweep;
  __device__ __forceinline__ void locate(int tile, int& token, int& feature) const {
    const int sweep = tile / (perSweep * featureTiles);
    const int first = sweep * perSweep;
    const int width = min(perSweep, tokenTiles - first);
    const int within = tile - first * featureTiles;
    token = first + within % width;
    feature = within / width;
  }
  __device__ __forceinline__ int count() const { return tokenTiles * featureTiles; }
};

}  // namespace fireq
