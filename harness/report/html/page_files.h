#pragma once

#include <string_view>

namespace kvsweep {

// The files of harness/report/html/page/, written into the program by cmake/KvsweepPage.cmake.
std::string_view page_html();
std::string_view page_css();
std::string_view page_js();

}  // namespace kvsweep
