# How a library, a test and a fuzz target of this project are declared, and the flags that all of them share.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_UNITY_BUILD OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "build type" FORCE)
endif()

find_program(tandem_ccache ccache)
if(tandem_ccache AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(tandem_launcher ${tandem_ccache})
  if(TANDEM_PRECOMPILE)  # without these ccache finds nothing again that was compiled with a precompiled header
    set(tandem_launcher env CCACHE_SLOPPINESS=pch_defines,time_macros ${tandem_ccache})
  endif()
  set(CMAKE_C_COMPILER_LAUNCHER ${tandem_launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${tandem_launcher})
endif()

add_library(tandem_flags INTERFACE)
target_include_directories(tandem_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
# Results must not depend on what the compiler fuses: a kernel that wants a fused multiply-add says so.
function(tandem_host_options)  # device code has flags of its own (cmake/cuda.cmake)
  target_compile_options(tandem_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${ARGN}>")
endfunction()
tandem_host_options(-Wall -Wextra -Wno-missing-field-initializers -ffp-contract=off)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  tandem_host_options(-march=x86-64-v2)
endif()
if(TANDEM_WERROR)
  tandem_host_options(-Werror)
endif()
if(TANDEM_SANITIZE)
  tandem_host_options(-fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE})
  if(TANDEM_SANITIZE MATCHES "undefined")
    tandem_host_options(-fno-sanitize-recover=undefined)
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      tandem_host_options(-fsanitize-ignorelist=${PROJECT_SOURCE_DIR}/cmake/sanitizers.txt)
    endif()
  endif()
endif()
if(TANDEM_FUZZ)
  tandem_host_options(-fsanitize=fuzzer-no-link -fsanitize-coverage-ignorelist=${PROJECT_SOURCE_DIR}/cmake/sanitizers.txt)
endif()
# Half of a test's compile time is optimising what runs once.
# With less, what is tested were slow too: of an inline function that stands in both, the linker takes the test's.
set(TANDEM_TEST_OPTIMISATION -O1 CACHE STRING "optimisation of the tests themselves, not of what they test, in a release build")
find_program(tandem_mold mold)
find_program(tandem_lld ld.lld)
if(tandem_mold AND NOT TANDEM_FUZZ)
  target_link_options(tandem_flags INTERFACE -fuse-ld=mold)
elseif(tandem_lld)
  target_link_options(tandem_flags INTERFACE -fuse-ld=lld)
endif()

# Headers that most files take are compiled once for all libraries, and once for all tests, where TANDEM_PRECOMPILE is on: with
# clang, which it spares a quarter of the time. g++ would gain a tenth and warn of its own library. A release build goes without, and
# so shows whether each file includes what it uses.
set(tandem_headers <algorithm> <array> <filesystem> <fstream> <functional> <map> <memory> <optional> <set> <span> <sstream> <string>
  <string_view> <thread> <unordered_map> <variant> <vector> ${PROJECT_SOURCE_DIR}/src/base/format.h ${PROJECT_SOURCE_DIR}/src/base/json.h)

# tandem_precompile(TARGET library|test): the first target of a kind brings its headers into being, the others take them.
function(tandem_precompile target kind)
  if(NOT TANDEM_PRECOMPILE)
    return()
  endif()
  set(owner tandem_${kind}_headers)
  if(NOT TARGET ${owner})
    set(source ${PROJECT_BINARY_DIR}/${owner}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "")
    add_library(${owner} OBJECT ${source})
    target_include_directories(${owner} SYSTEM PRIVATE $<TARGET_PROPERTY:fmt::fmt-header-only,INTERFACE_INCLUDE_DIRECTORIES>)
    target_link_libraries(${owner} PRIVATE tandem_flags nlohmann_json::nlohmann_json)
    target_precompile_headers(${owner} PRIVATE ${tandem_headers})
    target_compile_options(${owner} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")  # the same bytes each time, for ccache
    if(kind STREQUAL test)
      target_link_libraries(${owner} PRIVATE GTest::gtest_main GTest::gmock)
      target_precompile_headers(${owner} PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${owner})
endfunction()

# tandem_library(kv SOURCES block_pool.cpp … DEPS ops): the static library tandem_kv of src/kv.
# PRIVATE_DEPS names third-party targets whose headers stay inside the folder.
function(tandem_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(tandem_${name} STATIC ${arg_SOURCES})
  list(TRANSFORM arg_DEPS PREPEND tandem_)
  target_link_libraries(tandem_${name} PUBLIC tandem_flags ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  tandem_precompile(tandem_${name} library)
endfunction()

# Of every test, since whatever is linked with UCX needs it: the address sanitizer is already where UCX would watch the system's memory
# calls, while it is loaded, before main.
set(tandem_test_environment UCX_MEM_EVENTS=n)
if(TANDEM_SANITIZE MATCHES "address")  # which looks for one of its own version only
  find_program(tandem_symbolizer NAMES llvm-symbolizer addr2line)
  if(tandem_symbolizer)
    list(APPEND tandem_test_environment ASAN_SYMBOLIZER_PATH=${tandem_symbolizer})
  endif()
  list(APPEND tandem_test_environment LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/leaks.txt:print_suppressions=0)
endif()

# tandem_test(kv SOURCES block_pool_test.cpp … DEPS kv [LABELS slow]): the executable kv_test, one ctest entry.
# Tests run in the source root, so that tests/goldens is found by the same path everywhere.
function(tandem_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;PRIVATE_DEPS;LABELS" ${ARGN})
  add_executable(${name}_test ${arg_SOURCES})
  list(TRANSFORM arg_DEPS PREPEND tandem_)
  target_link_libraries(${name}_test PRIVATE tandem_flags ${arg_DEPS} ${arg_PRIVATE_DEPS} GTest::gtest_main GTest::gmock)
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name}_test PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:${TANDEM_TEST_OPTIMISATION}>)
  tandem_precompile(${name}_test test)
  add_test(NAME ${name} COMMAND ${name}_test WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 1500 ENVIRONMENT "${tandem_test_environment}")
endfunction()

# tandem_fuzz(gguf SOURCES gguf_fuzz.cpp DEPS model): the libFuzzer target gguf_fuzz.
function(tandem_fuzz name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name}_fuzz ${arg_SOURCES})
  list(TRANSFORM arg_DEPS PREPEND tandem_)
  target_link_libraries(${name}_fuzz PRIVATE tandem_flags ${arg_DEPS})
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  tandem_precompile(${name}_fuzz library)
endfunction()
