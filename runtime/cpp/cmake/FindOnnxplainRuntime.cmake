# ONNX Runtime as the target onnxplain::runtime: in ORT_ROOT where that is given, by its own CMake package, or where
# systems have it.
if(NOT ORT_ROOT AND DEFINED ENV{ORT_ROOT})
  set(ORT_ROOT "$ENV{ORT_ROOT}")
endif()
if(NOT ORT_ROOT)
  find_package(onnxruntime CONFIG QUIET)
endif()

if(TARGET onnxruntime::onnxruntime)
  if(NOT TARGET onnxplain::runtime)
    add_library(onnxplain::runtime INTERFACE IMPORTED GLOBAL)
    target_link_libraries(onnxplain::runtime INTERFACE onnxruntime::onnxruntime)
    # Some packages leave the folder below include/ to whoever includes.
    find_path(ORT_INCLUDE onnxruntime_cxx_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
    if(ORT_INCLUDE)
      target_include_directories(onnxplain::runtime SYSTEM INTERFACE ${ORT_INCLUDE})
    endif()
  endif()
  set(OnnxplainRuntime_FOUND TRUE)
else()
  find_path(ORT_INCLUDE onnxruntime_cxx_api.h HINTS ${ORT_ROOT}/include
    PATH_SUFFIXES onnxruntime onnxruntime/core/session include)
  find_library(ORT_LIBRARY onnxruntime HINTS ${ORT_ROOT}/lib)
  include(FindPackageHandleStandardArgs)
  find_package_handle_standard_args(OnnxplainRuntime REQUIRED_VARS ORT_INCLUDE ORT_LIBRARY
    REASON_FAILURE_MESSAGE "ONNX Runtime isn't found: give its folder, -DORT_ROOT=/path/to/onnxruntime (include/ and lib/)")
  if(OnnxplainRuntime_FOUND AND NOT TARGET onnxplain::runtime)
    add_library(onnxplain::runtime UNKNOWN IMPORTED GLOBAL)
    set_target_properties(onnxplain::runtime PROPERTIES IMPORTED_LOCATION "${ORT_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${ORT_INCLUDE}")
  endif()
endif()
