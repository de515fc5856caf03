# kvsweep_page(OUT): the files of harness/report/html/page/ as texts of a generated .cc, so that the program needs no file
# beside it.
function(kvsweep_page out)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/harness/report/html/page)
  set(functions "")
  foreach(kind html css js)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${folder}/page.${kind})
    file(READ ${folder}/page.${kind} text)
    string(APPEND functions "std::string_view page_${kind}() {
  return R\"kvsweep_page(${text})kvsweep_page\";
}
")
  endforeach()
  set(path ${CMAKE_CURRENT_BINARY_DIR}/generated/page_files.cc)
  file(CONFIGURE OUTPUT ${path} @ONLY CONTENT
"// Written by cmake/KvsweepPage.cmake from harness/report/html/page/.
#include \"harness/report/html/page_files.h\"

namespace kvsweep {
${functions}}  // namespace kvsweep
")
  set(${out} ${path} PARENT_SCOPE)
endfunction()
