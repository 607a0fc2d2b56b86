# Third-party packages. Each is used by one folder only; versions are what Debian 12 ships or newer.
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)  # src/base/json
find_package(fmt 9 REQUIRED)               # src/base
find_path(TOMLPLUSPLUS_INCLUDE_DIR toml++/toml.h REQUIRED)  # src/base/toml, headers only; 3.3 or newer
find_package(CLI11 2.1 REQUIRED)           # src/cli
find_path(HIGHWAY_INCLUDE_DIR hwy/highway.h REQUIRED)  # src/ops/cpu, headers only
if(TANDEM_TESTS)
  find_package(GTest 1.12 REQUIRED)
endif()
find_path(EDIT_INCLUDE_DIR histedit.h REQUIRED)  # src/cli, line editing
find_library(EDIT_LIBRARY edit REQUIRED)
find_package(Boost 1.81 CONFIG REQUIRED)  # src/serve/http: Asio and Beast, headers only
find_package(OpenSSL 3 REQUIRED)          # src/serve, src/trust
# Optional: without UCX the transport between processes (src/transport/ucx) is not built.
find_path(UCX_INCLUDE_DIR ucp/api/ucp.h)
find_library(UCP_LIBRARY ucp)
find_library(UCS_LIBRARY ucs)
if(UCX_INCLUDE_DIR AND UCP_LIBRARY AND UCS_LIBRARY)
  set(TANDEM_UCX ON)
else()
  set(TANDEM_UCX OFF)
  message(STATUS "UCX not found (libucx-dev): no transport between processes")
endif()
