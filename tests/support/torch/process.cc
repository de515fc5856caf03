#include "tests/support/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <csignal>
#include <cstdlib>

#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace {

int to_status(int raw) {
  return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
}

}  // namespace

Process::Process(const std::filesystem::path& directory, const std::vector<std::string>& arguments,
                 const std::map<std::string, std::string>& environment, std::optional<int64_t> file_limit_bytes) {
  static std::atomic<int> count{0};
  const std::string stem = ".process-" + std::to_string(count++);
  out_ = directory / (stem + ".out");
  err_ = directory / (stem + ".err");
  std::vector<std::string> words = {KVSWEEP_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ > 0) return;
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  const int out = open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int err = open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0 || chdir(directory.c_str()) != 0) _exit(126);
  if (file_limit_bytes) {
    const auto bytes = static_cast<rlim_t>(*file_limit_bytes);
    const rlimit limit{bytes, bytes};
    if (::signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(125);
  }
  execv(argv[0], argv.data());
  _exit(127);
}

Process::~Process() {
  if (!status_) {
    signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void Process::signal(int number) {
  kill(pid_, number);
}

bool Process::running() {
  int raw = 0;
  if (!status_ && waitpid(pid_, &raw, WNOHANG) == pid_) status_ = to_status(raw);
  return !status_;
}

ProcessResult Process::wait() {
  int raw = 0;
  if (!status_ && waitpid(pid_, &raw, 0) == pid_) status_ = to_status(raw);
  return {*status_, read_text(out_), read_text(err_)};
}

ProcessResult run_program(const std::filesystem::path& directory, const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment) {
  return Process(directory, arguments, environment).wait();
}

}  // namespace kvsweep::testing
