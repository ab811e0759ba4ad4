// Those of kernels/cuda/wgmma_half.cuh are in wgmma.cuh here.
#pragma once
#include "wgmma.cuh"
