#pragma once

#include <string>

#include "harness/report/gate/gate.h"

namespace kvsweep {

// A heading, a table with a row for each verdict, FAIL first, and what its columns mean. Names come from files that
// others have written: control characters are shown as spaces, so that a name is never a line of its own.
std::string gate_to_terminal(const GateReport& report);

// The same for $GITHUB_STEP_SUMMARY or a comment; HTML in names is shown, not rendered.
std::string gate_to_markdown(const GateReport& report);

// A test case for each verdict: class the rule's name, name the point. FAIL is a failure. INCONCLUSIVE is skipped: a
// failure would claim a loss that nobody has seen; who wants it red has exit status 3.
std::string gate_to_junit(const GateReport& report);

// Workflow commands of GitHub Actions, one a line: ::error for FAIL, ::warning for INCONCLUSIVE, at the rule's line.
// GitHub shows ten of each a step.
std::string gate_to_github(const GateReport& report);

}  // namespace kvsweep
