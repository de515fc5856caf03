# kvsweep_plugin_table(OUT KIND scheme FOLDER schemes HEADER harness/core/scheme.h ENTRY SchemeEntry)
#
# One plug-in is one .cc file directly in FOLDER whose only external symbol is `ENTRY <stem>_entry()`. This writes the
# table of all of them, so that nothing but the file itself names a plug-in, and a missing entry is a link error.
function(kvsweep_plugin_table out)
  cmake_parse_arguments(P "" "KIND;FOLDER;HEADER;ENTRY" "" ${ARGN})
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${P_FOLDER}/*.cc)
  list(SORT files)
  set(declarations "")
  set(rows "")
  foreach(file ${files})
    get_filename_component(stem ${file} NAME_WE)
    string(APPEND declarations "${P_ENTRY} ${stem}_entry();\n")
    string(APPEND rows "      ${stem}_entry(),\n")
  endforeach()
  set(path ${CMAKE_CURRENT_BINARY_DIR}/generated/${P_KIND}_table.cc)
  file(CONFIGURE OUTPUT ${path} @ONLY CONTENT
"// Written by cmake/KvsweepPlugins.cmake from the files of ${P_FOLDER}/.
#include \"${P_HEADER}\"

namespace kvsweep {
${declarations}
const std::vector<${P_ENTRY}>& ${P_KIND}_table() {
  static const std::vector<${P_ENTRY}> table = {
${rows}  };
  return table;
}
}  // namespace kvsweep
")
  set(${out} ${path} PARENT_SCOPE)
endfunction()
