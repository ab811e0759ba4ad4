# cmake -D NVCC=… -D SOURCE=quantize.cu -D CUBIN=quantize.cubin -D EMBED=quantize.cubin.cc -P embed.cmake
#
# Compiles a file of kernels for sm_90a and writes the C++ file that embeds it. Fails if a kernel spills registers or keeps
# anything in local memory, or if ptxas gave up an optimization that the kernels are written for (its warnings C75xx: a
# wgmma serialized, a setmaxnreg ignored).
cmake_minimum_required(VERSION 3.18)
get_filename_component(name ${SOURCE} NAME_WE)

execute_process(
  COMMAND ${NVCC} -cubin -gencode arch=compute_90a,code=sm_90a -std=c++20 -O3 -Xptxas -v -o ${CUBIN} ${SOURCE}
  RESULT_VARIABLE status OUTPUT_VARIABLE report ERROR_VARIABLE report)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "nvcc failed on ${SOURCE}:\n${report}")
endif()

set(kernels "")
set(faults "")
string(REGEX MATCHALL "[^\n]*C75[0-9][0-9][^\n]*" lost "${report}")
foreach(line IN LISTS lost)
  string(APPEND faults "  ${line}\n")
endforeach()
string(REGEX MATCHALL "Compiling entry function '[^']+'[^\n]*\n[^\n]*\n[^\n]*spill loads\n[^\n]*Used [0-9]+ registers" uses "${report}")
foreach(use IN LISTS uses)
  string(REGEX MATCH "function '([^']+)'" _ "${use}")
  set(kernel ${CMAKE_MATCH_1})
  string(REGEX MATCH "([0-9]+) bytes stack frame, ([0-9]+) bytes spill stores, ([0-9]+) bytes spill loads" memory "${use}")
  if(NOT memory STREQUAL "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
    string(APPEND faults "  ${kernel}: ${memory}\n")
  endif()
  string(REGEX MATCH "Used ([0-9]+) registers" _ "${use}")
  string(APPEND kernels "    {\"${kernel}\", ${CMAKE_MATCH_1}},\n")
endforeach()
if(kernels STREQUAL "")
  message(FATAL_ERROR "ptxas reported no kernel in ${SOURCE}:\n${report}")
endif()
if(NOT faults STREQUAL "")
  file(REMOVE ${CUBIN})
  message(FATAL_ERROR "kernels of ${SOURCE} lose performance:\n${faults}")
endif()

file(WRITE ${EMBED} "// Generated from ${name}.cu.
#include \"cubins.h\"

__asm__(
    \".pushsection .rodata\\n\"
    \".balign 64\\n\"
    \".hidden fireq_cubin_${name}\\n\"
    \".globl fireq_cubin_${name}\\n\"
    \"fireq_cubin_${name}:\\n\"
    \".incbin \\\"${CUBIN}\\\"\\n\"
    \".popsection\\n\");

extern \"C\" __attribute__((visibility(\"hidden\"))) const unsigned char fireq_cubin_${name}[];

namespace fireq::cuda {

static const KernelUse kKernels[] = {
${kernels}};
extern const Cubin kCubin_${name};
const Cubin kCubin_${name}{\"${name}\", fireq_cubin_${name}, kKernels};

}  // namespace fireq::cuda
")
