#include "tasks/data/words.h"

#include <sstream>

namespace kvsweep {
namespace {

std::vector<std::string> words_of(const char* text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

}  // namespace

const std::vector<std::string>& own_adjectives() {
  static const std::vector<std::string> words = words_of(R"(
    amber ancient angry ashen awkward bald bare bitter black blank blue blunt bold boring brave brief bright brisk
    broad broken brown bumpy busy calm careful careless cautious cheap cheerful chilly clean clear clever cloudy
    clumsy coarse cold common complex copper costly cozy cracked crisp crooked crowded curious curly curved daily damp
    daring dark deep delicate dense dim dirty distant double drab dry dull dusty eager early earnest eastern easy
    elegant empty enormous even faded faint fair familiar famous fancy fast feeble fierce fine firm flat fluffy foggy
    fond foreign fragile frail free fresh friendly frosty frozen funny fuzzy generous gentle giant glad gleaming
    gloomy glossy golden graceful grand grateful gray greasy great green grim gritty happy hard harsh hasty heavy
    helpful hidden hollow honest hot huge humble hungry icy idle jolly jovial juicy keen kind large late lavish lazy
    lean light lively lonely long loose loud lovely low loyal lucky mad marble massive mellow messy mild misty modern
    modest muddy narrow neat nervous new nimble noble noisy northern odd old open orange ornate pale patient perfect
    plain playful pleasant polite poor precious pretty proper proud purple quaint quick quiet rapid rare raw ready red
    regal rich rigid ripe robust rough round royal ruddy rural rusty sad salty sandy secret serious shabby shady
    shallow sharp shiny short shy silent silky silver simple skinny sleepy slender slim slippery slow small smart
    smooth snowy soft solid sour southern spare sparse spicy spotless square stale steady steep stern sticky stiff
    stormy stout straight strange strict strong stubborn sturdy subtle sudden sunny sweet swift tall tame tart tender
    tense thick thin thirsty tidy timid tiny tired tough tranquil upright useful vague vast velvet vivid warm wary
    watchful weary western wet white wide wild windy wise witty wooden woolen worn yellow young zesty)");
  return words;
}

const std::vector<std::string>& own_people() {
  static const std::vector<std::string> words = words_of(R"(
    actor artist aunt author baker banker barber builder butcher captain carpenter chemist clerk coach cook cousin
    dancer dentist doctor driver editor engineer farmer fisher florist gardener guard guest guide hunter judge juggler
    knight lawyer librarian mason mayor mechanic merchant miller miner musician nephew neighbor nurse painter pilot
    plumber poet porter potter printer ranger sailor scholar shepherd singer smith stranger student tailor teacher
    traveler tutor uncle waiter weaver writer)");
  return words;
}

const std::vector<std::string>& own_animals() {
  static const std::vector<std::string> words = words_of(R"(
    ant badger bear beaver bee bird camel cat cow crab crane cricket crow deer dog donkey dove duck eagle falcon ferret
    finch fox frog goat goose hamster hare hawk hedgehog heron horse kitten lamb lark lion lizard mole monkey moose moth
    mouse mule otter owl ox parrot pigeon pony puppy rabbit raven robin rooster seal sheep snail sparrow spider squirrel
    stork swan tiger toad tortoise turtle wolf zebra)");
  return words;
}

const std::vector<std::string>& own_things() {
  static const std::vector<std::string> words = words_of(R"(
    anchor apron armchair arrow axe bag ball banner barrel basin basket bead bell belt bench bicycle blanket blouse boat
    book boot bottle bowl box bracelet branch brick broom brush bucket button cable candle canoe cape card carpet cart
    chain chair chart chest chimney clay cloak clock cloth coat coin collar column comb compass cork cradle crate crown
    cup curtain cushion dish door drawer dress drum fan feather fence flag flask flower flute fork frame gate glass
    glove hammer harp hat helmet hinge hook jacket jar jug kettle key kite knife knob ladder lamp lantern leaf lens
    letter lever lock magnet map mask medal mirror mitten mop mug nail napkin necklace needle net notebook oar oven
    paddle page pan paper parcel pebble pen pencil piano picture pillow pipe plank plate plow pocket pole pot puzzle
    quilt radio rail rake ribbon ring rope rug ruler sack saddle sail sandal saw scarf scroll shawl shelf shell shirt
    shoe shovel sign sled sock spade spoon stamp statue stone stool stove string table tape teapot tent thread ticket
    tile tool torch towel tray trumpet trunk tub umbrella vase vest violin wagon wallet wheel whistle window wrench)");
  return words;
}

const std::vector<std::string>& own_places() {
  static const std::vector<std::string> words = words_of(R"(
    abbey alley attic bakery balcony barn basement bay beach bridge cabin canal canyon castle cave cellar chapel cliff
    coast corner cottage courtyard creek desert dock factory farm field forest fountain garage garden grove hall harbor
    hill hospital hotel inn island kitchen lake library lighthouse market meadow mill mountain museum orchard palace
    park path pier plaza pond porch quarry ranch river school shop shore stable stadium station store street studio
    temple theater tower tunnel valley village warehouse workshop)");
  return words;
}

std::vector<std::string> own_nouns() {
  std::vector<std::string> nouns = own_people();
  for (const auto* more : {&own_animals(), &own_things(), &own_places()})
    nouns.insert(nouns.end(), more->begin(), more->end());
  return nouns;
}

const std::vector<std::string>& own_verbs() {
  static const std::vector<std::string> words = words_of(R"(
    accepted admired adjusted arranged assembled borrowed brushed carried changed checked cleaned collected compared
    copied counted covered delivered described dragged dropped dusted emptied examined exchanged fixed folded followed
    gathered guarded handled hoisted ignored inspected invented kicked labeled lifted loaded mailed measured mended
    moved noticed offered opened ordered packed painted patched photographed placed planned polished pulled purchased
    pushed raised received remembered removed repaired replaced requested returned rolled scrubbed shared showed
    sketched sorted stacked stored studied tested tied touched traded trimmed turned unpacked unwrapped used washed
    weighed wrapped)");
  return words;
}

const std::vector<std::string>& own_motions() {
  static const std::vector<std::string> words = words_of(R"(
    arrived climbed drifted hesitated hurried jumped laughed limped lingered listened marched paused rested returned
    rushed shivered slept smiled sneezed stayed stood strolled stumbled vanished waited walked wandered watched whistled
    yawned)");
  return words;
}

const std::vector<std::string>& own_adverbs() {
  static const std::vector<std::string> words = words_of(R"(
    again alone already badly barely boldly bravely briefly briskly calmly carefully casually closely eagerly easily
    finally firmly gently gladly happily hastily kindly lazily lightly loudly merrily neatly nervously often patiently
    politely poorly promptly proudly quickly quietly rarely roughly sadly safely secretly seldom silently slowly softly
    soon steadily suddenly swiftly together twice warmly wisely)");
  return words;
}

}  // namespace kvsweep
