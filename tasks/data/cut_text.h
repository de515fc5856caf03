#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// A prompt as text, cut where the query begins.
struct CutText {
  std::string context, query;
  bool parse_special = false;  // special tokens that are written out become their ids
  bool add_bos = true;         // where the model asks for one; a chat format writes its own
};

// `text` as one user's message in the model's chat format; `answer` is what the assistant's turn begins with. Formats
// may drop white space at the message's ends. Throws ConfigError naming `owner` ("ruler.chat") for a model without one.
CutText in_chat(const ChatPrompt& chat, const CutText& text, const std::string& answer, const std::string& owner);

struct CutIds {
  std::vector<int32_t> ids;    // of context and query as one text, BOS in front
  int64_t context_tokens = 0;  // the first ids that encode the context alone and that the query does not change;
                               // < ids.size(): a token that reaches over the border belongs to the query
};

std::vector<int32_t> text_ids(const Tokenizer& tokenizer, const CutText& text);
// ids: text_ids() of the text, where they are known already.
CutIds cut_ids(const Tokenizer& tokenizer, const CutText& text, std::vector<int32_t> ids);
CutIds cut_ids(const Tokenizer& tokenizer, const CutText& text);

}  // namespace kvsweep
