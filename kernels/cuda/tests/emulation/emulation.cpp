// What all programs here share, compiled once.
#include "fibers.cpp"
#include "gemm_problem.cpp"
#include "ptx.cpp"
#include "races.cpp"
#include "wgmma.cpp"
