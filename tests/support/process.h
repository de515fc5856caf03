#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kvsweep::testing {

struct ProcessResult {
  int status = 0;  // exit status; 128 + signal when a signal ended it
  std::string out, err;
};

// The program under test (KVSWEEP_PROGRAM) with arguments, in a directory, with extra environment variables.
class Process {
 public:
  Process(const std::filesystem::path& directory, const std::vector<std::string>& arguments,
          const std::map<std::string, std::string>& environment);
  ~Process();  // kills what still runs
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number);
  bool running();
  ProcessResult wait();

 private:
  int pid_ = 0;
  std::optional<int> status_;
  std::filesystem::path out_, err_;
};

// Starts it and waits.
ProcessResult run_program(const std::filesystem::path& directory, const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment);

}  // namespace kvsweep::testing
