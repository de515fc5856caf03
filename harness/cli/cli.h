#pragma once

namespace kvsweep {

// The program: parses the command line, runs one command, returns the exit status. 0: done; 1: points failed or an
// unexpected error; 2: bad input; 130: interrupted. 3 is kept for gates without a verdict.
int run_cli(int argc, char** argv);

}  // namespace kvsweep
