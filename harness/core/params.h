#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kvsweep {

// A value for layers `first` to `last` alone.
struct LayerText {
  int64_t first = 0, last = 0;
  std::string text;
  int line = 0;
};

// One value as it stood in the YAML, with its place: a scalar, or a map {default: 4, layers: {0: 8, 28-29: 8}}.
struct ParamValue {
  std::string text;                 // of a map: its default
  int line = 0;                     // 1-based; 0: not from a file
  std::vector<LayerText> layers{};  // of a map: sorted, without overlap
};

// One parameter's value for every layer of a model.
template <class T>
class PerLayer {
 public:
  PerLayer(T value = {}) : default_(std::move(value)) {}  // NOLINT: one value is a value for every layer

  // [layers]. Throws ConfigError when a layer is named that a model of so many layers does not have.
  std::vector<T> values(int64_t layers) const;
  // Of one layer, whether or not a model has it.
  T at(int64_t layer) const;
  // Every value that some layer may have.
  std::set<T> distinct() const;

 private:
  friend class Params;
  T default_;
  std::vector<std::pair<LayerText, T>> layers_;
  std::string place_;  // "<file>:<line>: <plug-in>.<key>"
};

// Mean over layers, for nominal bits.
double mean_of(const PerLayer<int64_t>& values, int64_t layers);

// What a plug-in said of one of its parameters: enough to print a help line.
struct ParamDeclaration {
  std::string name;
  std::string type;           // "integer", "number", "flag", "choice", "text"
  std::string default_value;  // as it would be written in YAML; "" and required: no default
  std::string allowed;        // "[1, 8]", "token|channel", ""
  std::string help;
  bool required = false;
};

// The keys of one plug-in's entry in a sweep: typed, with default and range, each declared where it is read. A plug-in
// reads all of its parameters in its factory, then calls finish(). The same declarations validate the YAML, fill the
// record with resolved values and print `kvsweep list`.
//
// Errors: ConfigError "<file>:<line>: <plug-in>.<key> = <value>: <what is allowed>".
class Params {
 public:
  // owner: "uniform", for messages. file: the YAML file, for messages; line: of the plug-in's entry in it, where a key
  // that is missing is reported.
  Params(std::string owner, std::string file, std::map<std::string, ParamValue> values, int line = 0);

  // A Params that has no values and never throws: a factory run on it leaves its declarations behind. Required
  // parameters read as a value inside their range.
  static Params describe(std::string owner);
  bool describing() const { return describing_; }

  int64_t integer(const std::string& key, std::optional<int64_t> fallback, int64_t low, int64_t high,
                  const std::string& help);
  double number(const std::string& key, std::optional<double> fallback, double low, double high,
                const std::string& help);
  bool flag(const std::string& key, std::optional<bool> fallback, const std::string& help);
  std::string choice(const std::string& key, std::optional<std::string> fallback,
                     const std::vector<std::string>& allowed, const std::string& help);
  std::string text(const std::string& key, std::optional<std::string> fallback, const std::string& help);
  // The same for parameters that may differ from layer to layer.
  PerLayer<int64_t> layer_integers(const std::string& key, std::optional<int64_t> fallback, int64_t low, int64_t high,
                                   const std::string& help);
  PerLayer<std::string> layer_choices(const std::string& key, std::optional<std::string> fallback,
                                      const std::vector<std::string>& allowed, const std::string& help);
  // A file: relative to the current directory, or beside the YAML file. Resolved as name and content
  // ("smol.safetensors sha256:<16 digits>"), so that a point is the same wherever the file lies. Throws ConfigError
  // that lists where it was looked for. "" while describing, and where one that is not required is not given.
  std::filesystem::path file(const std::string& key, const std::string& help, bool required = true);

  // A rule between parameters is broken: throws a ConfigError at the line of `key`.
  [[noreturn]] void reject(const std::string& key, const std::string& why) const;

  // Keys that nobody read are errors that name the nearest declared key.
  void finish() const;

  // Every declared parameter with the value that holds, in order of declaration.
  const std::vector<std::pair<std::string, std::string>>& resolved() const { return resolved_; }
  const std::vector<ParamDeclaration>& declarations() const { return declarations_; }
  const std::string& owner() const { return owner_; }

 private:
  const ParamValue* take(ParamDeclaration declaration, bool may_differ_by_layer = false);
  // Parses and checks one text; `what` names it in errors: "uniform.k_bits", "uniform.k_bits of layers 28-29".
  int64_t parse_integer(const std::string& what, const std::string& text, int64_t low, int64_t high) const;
  std::string parse_choice(const std::string& what, const std::string& text,
                           const std::vector<std::string>& allowed) const;
  template <class T, class Parse>
  PerLayer<T> per_layer(const std::string& key, ParamDeclaration declaration, T fallback, const Parse& parse);
  void resolve(const std::string& key, std::string text) { resolved_.emplace_back(key, std::move(text)); }
  std::string place(const std::string& key) const;

  std::string owner_;
  std::string file_;
  std::map<std::string, ParamValue> values_;
  int line_ = 0;
  bool describing_ = false;
  std::vector<ParamDeclaration> declarations_;
  std::vector<std::pair<std::string, std::string>> resolved_;
};

}  // namespace kvsweep
