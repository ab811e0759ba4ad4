// Variants of the large kernel to be timed: build like gemm_large.cu, run with bench_large.py.
#define FIREQ_NO_KINDS
#include "../gemm_large.cu"

FIREQ_GEMM_LARGE(v9_stages5, 1, 2, 1, 256, 5, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v9_stages4, 1, 2, 1, 256, 4, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v9_stages4_full, 1, 2, 1, 256, 4, Epilogue::kLinear, Codes::kFull, ScaleType::kBf16)
