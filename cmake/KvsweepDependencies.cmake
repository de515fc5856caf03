# Third-party packages as two interface targets: kvsweep_deps_plain (no torch) and kvsweep_deps_torch.
find_package(fmt REQUIRED)
find_package(Boost REQUIRED)  # Boost.Math: headers only
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(simdjson REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)

add_library(kvsweep_deps_plain INTERFACE)
target_link_libraries(kvsweep_deps_plain INTERFACE fmt::fmt nlohmann_json::nlohmann_json OpenSSL::Crypto ICU::uc
  Threads::Threads simdjson::simdjson ZLIB::ZLIB PkgConfig::PCRE2 PkgConfig::SENTENCEPIECE CLI11::CLI11 Boost::headers)
if(TARGET yaml-cpp::yaml-cpp)
  target_link_libraries(kvsweep_deps_plain INTERFACE yaml-cpp::yaml-cpp)
else()  # Debian 12 names the target without a namespace
  target_link_libraries(kvsweep_deps_plain INTERFACE yaml-cpp)
endif()

if(NOT KVSWEEP_TORCH)
  return()
endif()

if(NOT KVSWEEP_TORCH_DIR)
  file(GLOB candidates ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  list(LENGTH candidates count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "no torch package in ${CMAKE_CURRENT_SOURCE_DIR}/.venv: run scripts/bootstrap.sh, "
                        "or set KVSWEEP_TORCH_DIR, or build without it (-DKVSWEEP_TORCH=OFF)")
  endif()
  set(KVSWEEP_TORCH_DIR ${candidates} CACHE PATH "" FORCE)
endif()
if(NOT EXISTS ${KVSWEEP_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "KVSWEEP_TORCH_DIR=${KVSWEEP_TORCH_DIR} has no lib/libtorch_cpu.so")
endif()
# Linked by file, not through find_package(Torch): that one asks for a CUDA toolkit whenever the wheel has CUDA.
add_library(kvsweep_deps_torch INTERFACE)
# Searched last: the wheel carries headers of an fmt that it does not export, and they must not hide the system's.
target_compile_options(kvsweep_deps_torch INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${KVSWEEP_TORCH_DIR}/include>")
target_link_directories(kvsweep_deps_torch INTERFACE ${KVSWEEP_TORCH_DIR}/lib)
target_link_options(kvsweep_deps_torch INTERFACE "LINKER:-rpath,${KVSWEEP_TORCH_DIR}/lib" "LINKER:--no-as-needed"
  "LINKER:--allow-shlib-undefined")
# at::parallel_for runs on one thread in code compiled without OpenMP. The runtime is the one that torch brings, linked by
# file: one pool of threads for both.
file(GLOB KVSWEEP_GOMP ${KVSWEEP_TORCH_DIR}/lib/libgomp*.so*)
if(NOT KVSWEEP_GOMP)
  set(KVSWEEP_GOMP gomp)
endif()
target_compile_options(kvsweep_deps_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(kvsweep_deps_torch INTERFACE torch_cpu c10 ${KVSWEEP_GOMP})
if(KVSWEEP_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # the one that torch uses
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 12 does
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  find_package(CUDAToolkit REQUIRED)
  target_link_libraries(kvsweep_deps_torch INTERFACE torch_cuda c10_cuda CUDA::cudart)
endif()
