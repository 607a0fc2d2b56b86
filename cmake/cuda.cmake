# CUDA: which compiler, and the flags of device code. Included when TANDEM_CUDA is on. A build needs no GPU and no driver:
# the runtime is linked statically, and the program says at start what the machine lacks.
#
# The compiler is the first of: CMAKE_CUDA_COMPILER, CUDACXX, .toolchain/cuda (tools/fetch-cuda), an installed toolkit.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(tandem_toolchain ${PROJECT_SOURCE_DIR}/.toolchain)
  if(DEFINED ENV{TANDEM_TOOLCHAIN})
    set(tandem_toolchain $ENV{TANDEM_TOOLCHAIN})
  endif()
  find_program(TANDEM_NVCC nvcc PATHS ${tandem_toolchain}/cuda/bin /usr/local/cuda/bin NO_DEFAULT_PATH)
  find_program(TANDEM_NVCC nvcc)
  if(NOT TANDEM_NVCC)
    message(FATAL_ERROR "no CUDA compiler: run tools/fetch-cuda, or install CUDA 13")
  endif()
  set(CMAKE_CUDA_COMPILER ${TANDEM_NVCC} CACHE FILEPATH "CUDA compiler")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a-real CACHE STRING "CUDA architectures")  # machine code of Hopper alone, no PTX
endif()

# ptxas only mentions it when it has to serialise WGMMA (C7510), which costs half the speed: such a build fails.
set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/refuse_serialised_wgmma.sh)
if(tandem_ccache)
  list(APPEND CMAKE_CUDA_COMPILER_LAUNCHER ${tandem_ccache})
endif()

enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25.1 does not know that nvcc has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
find_package(CUDAToolkit 13.0 REQUIRED)

# As for the host, nothing is fused that the source does not fuse. An assert in device code would cost registers and turn
# asynchronous products into serialised ones, so there is none in any build type.
add_library(tandem_cuda_flags INTERFACE)
target_compile_options(tandem_cuda_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-DNDEBUG;--diag-suppress=20208;--fmad=false;--expt-relaxed-constexpr;-lineinfo;-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter>)
if(TANDEM_WERROR)
  target_compile_options(tandem_cuda_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(TANDEM_EVERY_LANE_ARRIVES)
  target_compile_definitions(tandem_cuda_flags INTERFACE TANDEM_EVERY_LANE_ARRIVES)
endif()
