#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/files/tensor_file.h"

namespace kvsweep::testing {

class GoldenManifest;

// One case of schemes/<scheme>/manifest.json: what the original code was given and what it made of it.
class GoldenCase {
 public:
  struct Entry;  // the case's JSON
  GoldenCase(const GoldenManifest& manifest, std::shared_ptr<const Entry> entry);

  const std::string& name() const { return name_; }
  const std::string& function() const { return function_; }
  const std::vector<std::string>& inputs() const { return inputs_; }  // texts, see input()
  // Entries of `params`; the test fails when one is missing or of another type.
  bool has(const std::string& key) const;  // present and not null
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  bool flag(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;
  // "manifest.json: case": for INFO.
  std::string label() const;
  bool has_output(const std::string& key) const;
  // In the dtype that is stored.
  at::Tensor output(const std::string& key) const;
  // Input `index` as float32 [H, T, D] (stored [T, H * D] arrays are cut into heads of 64 channels, as the README of
  // the vectors says), after the words of the manifest: "tokens 0..127", "heads 0,1", "head 2", "channels 0..63" (of
  // the merged heads: one head of so many channels), "[a, 0:32]", "repeated 4 times along tokens, first 128 tokens".
  // "as [..]", "as K", "(...)" and the axis' names change nothing. Fails the test on words that it does not know.
  at::Tensor input(size_t index) const;
  // The same for a text that is no entry of `inputs`.
  at::Tensor resolve(const std::string& text) const;

 private:
  const GoldenManifest& manifest_;
  std::shared_ptr<const Entry> entry_;
  std::string name_, function_;
  std::vector<std::string> inputs_;
};

// schemes/<scheme>/manifest.json with its tensors, and the inputs that all schemes share.
class GoldenManifest {
 public:
  explicit GoldenManifest(std::filesystem::path path);
  const std::filesystem::path& path() const { return path_; }
  const std::vector<GoldenCase>& cases() const { return cases_; }
  // A tensor of the scheme's own file, else of schemes/inputs. Fails the test when there is none.
  at::Tensor tensor(const std::string& name) const;

 private:
  std::filesystem::path path_;
  std::vector<GoldenCase> cases_;
  std::unique_ptr<SafetensorsFile> own_;
  std::vector<std::unique_ptr<SafetensorsFile>> inputs_;
};

// Every manifest of one scheme's folder below the golden roots, opened once. Skips the running test, visibly, when
// there is none.
const std::vector<std::unique_ptr<GoldenManifest>>& golden_manifests_or_skip(const std::string& folder);

// [H, T, D] -> [T, H * D]: heads side by side, as models keep them.
at::Tensor merged(const at::Tensor& heads);
// [T, H * D] -> [H, T, D]
at::Tensor split_heads(const at::Tensor& tokens, int64_t head_dim);

}  // namespace kvsweep::testing
