#include "harness/cli/cli.h"

int main(int argc, char** argv) {
  return kvsweep::run_cli(argc, argv);
}
