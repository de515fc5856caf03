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
  // file_limit_bytes: no file grows beyond it, writes fail as on a full disk.
  Process(const std::filesystem::path& directory, const std::vector<std::string>& arguments,
          const std::map<std::string, std::string>& environment, std::optional<int64_t> file_limit_bytes = {});
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
