"""What the corpus says: own short sentences, composed ones, strings of common and of invented words.

More than half of what is said for training has invented words: an audio encoder that only hears a few hundred
words learns the words, and not the sounds they are made of.
"""

from __future__ import annotations

import numpy as np

# fmt: off
_SENTENCES = """
The boat slipped past the pier before anyone woke up.
Put the blue cup on the shelf above the sink.
My mother baked bread every Monday morning.
Five brown bears played beside the frozen river.
We both thought the path went over the bridge.
Please move the table a bit closer to the window.
The judge asked the boy why he chose the yellow jacket.
Snow fell softly on the roof of the old mill.
Bob and Pam mopped up the mess before lunch.
She shook the rug and swept the kitchen floor.
A thick fog hid the far side of the valley.
The baker wrapped the warm pie in brown paper.
Use a pencil to mark the place where it broke.
The puppy buried my shoe under the apple tree.
Fresh figs and plums make a very good jam.
Who would have imagined such a beautiful view?
The farmer's wife measured the oats with a wooden spoon.
They weighed the fish and threw the small ones back.
Rain drummed on the metal roof all night long.
I have never heard of a more peculiar idea.
Bring me the map, the lamp, and a box of matches.
The museum opens its doors at half past four.
Maybe we should pay the bill and go home.
Above the village, a white path climbs toward the pass.
Everybody hummed the same simple tune.
The poor man opened his umbrella too late.
He polished the copper pot until it shone.
Do you remember the name of that wonderful film?
The poem was short, but its meaning was deep.
Birds build nests from moss, mud, and bits of wool.
Our neighbor's goat jumped over the garden fence.
The pilot waved and the plane began to move.
Mix the flour with a pinch of salt and warm water.
Why is the sky so bright above the harbor?
A broken wheel will not carry you to market.
Push the button twice and wait for the green light.
The voice on the radio spoke about the weather.
Thirty thousand people came to hear the music.
She bought a pair of boots made of smooth leather.
The moon rose over the quiet fields.
I believe the problem is much simpler than that.
The child blew soap bubbles into the summer air.
Keep the fire low and stir the soup slowly.
Pay attention to the way he moves his mouth.
The ship's bell rang five times in the fog.
Both brothers became members of the same club.
The path was muddy, so we walked on the grass.
Vivid purple flowers covered the far hillside.
Open your mouth wide and say a long vowel.
The company improved its program by the end of May.
A wise fox waits for the farmer to fall asleep.
My favorite book has a map inside the front cover.
The water boils when the temperature is high enough.
Nobody knew how the vase came to be broken.
Shall we meet beside the fountain at noon?
The mouse nibbled a hole in the bag of beans.
He laughed so loudly that the whole room turned around.
Please speak slowly and pronounce every word.
Her job is to measure how far the ice has moved.
The early bus was full of sleepy students.
Paper, pens, and a pot of glue lay on the bench.
Father used to fish from that bridge every weekend.
The new law will help people who work at home.
Jump over the puddle or your shoes will be wet.
This machine makes ten thousand bottles an hour.
The thief vanished before the police arrived.
Warm milk with honey helps me fall asleep.
We hope the weather improves by the weekend.
The old bear yawned and went back to its cave.
Imagine a world where nobody has to hurry.
Sam poured the tea and passed around the biscuits.
The bridge was built by people from seven villages.
What a marvelous pumpkin you have grown!
Leave the map by the door when you go.
The room smelled of beeswax and old books.
A pebble in the shoe can spoil a long walk.
The band played a waltz and everyone danced.
No, I do not think that is a good idea.
Yes, of course, you may borrow my bicycle.
Hello, my name is Emma, and I live by the sea.
Good morning, how may I help you today?
Thank you very much for coming all this way.
The answer, as you may have guessed, was zero.
In my opinion, both of them were probably wrong.
Before we begin, let me show you something new.
This is the first time I have seen my own reflection speak.
Wave by wave the sea took back the beach.
Pepper makes me sneeze, but I put it on everything.
The mayor promised to fix the broken street lamps.
Few people believe a rumor that begins with a wink.
Five, four, three, two, one, and up it goes!
Beyond the gate there was nothing but empty fields.
The bee hummed above the purple clover.
You could hear the mill wheel from my bedroom.
Mama made me mash my mixed beans.
Big black bugs bit a blue-black bear.
Peter moved the piano by himself, believe it or not.
A proper cup of coffee from a proper copper pot.
Wolves howl when the full moon climbs above the woods.
Thin clouds drifted over the southern mountains.
""".strip().splitlines()
_SUBJECTS = """the boy|my mother|a young woman|the old farmer|our teacher|the blue whale|somebody|the mayor
a brave mouse
the whole family|Papa|her brother|the baker|a white bird|the pilot|every member of the club|the poet|Bob|Emma
a wolf
the judge|my neighbor|the captain|a busy bee|the museum|the company|this machine|the doctor|a small robot
the painter
""".strip().replace("\n", "|").split("|")
_VERBS = """bought|painted|moved|followed|imagined|broke|measured|forgot|admired|pushed|carried|found
described|repaired
watched|borrowed|opened|covered|mixed|chose|washed|showed us|threw away|jumped over|talked about|looked for
wrapped
""".strip().replace("\n", "|").split("|")
_OBJECTS = """a map of the moon|the broken umbrella|five brown eggs|the purple boat|a pot of honey
my favorite book
the village bridge|both of the apples|a very old photograph|the empty bottle|a warm woolen blanket
the missing key
a beautiful poem|the yellow submarine|an ounce of pepper|the thick wooden door|a pair of gloves
the garden fence
a thousand tiny shells|the shape of the cloud|a bowl of mushroom soup|the first page of the newspaper
a bag of plums
""".strip().replace("\n", "|").split("|")
_PLACES = """by the river|in the middle of the night|before breakfast|on the way home|under the apple tree
at the bottom of the hill|from above|with both hands|without a word|in the empty theater
on Wednesday afternoon
beside the lighthouse|for the very first time|as fast as possible|when nobody was watching|over the bridge
near the old mill|in a small blue box|after the film|because of the weather|with a little help|every morning
""".strip().replace("\n", "|").split("|")
_OPENINGS = """well|maybe|of course|by the way|believe me|honestly|as you know|suddenly|somehow|in fact|oh
perhaps
""".strip().replace("\n", "|").split("|")
_WORDS = """amber apple baby bamboo beige bishop blob boy bubble cabbage camp chew choose church cobweb couch
cow cube
deep doubt dove eager earth easy elbow fifth figure five foam fudge fuzzy gym goose growth haven heavy home
hope huge ivy jam joy judge jumble kayak knife lava league lamb loop loyal mambo map march massage maybe memo
mirage mob moth mouth movie mumble myth nephew ninth noise numb oath obey octave opaque oval over oyster palm
pebble pep pivot plum poem pop prove puff pump quail queue quiver rhythm robe rouge royal ruby safe scarf
sheep shove skew smooth soup sphere spoon squash swamp teeth thaw theme thief thumb toad tomb tooth treasure
tube umbrella urge vague valve vapor velvet verb view vivid voice vow voyage vision waffle wasp wave weave
web whip wolf womb wove yacht yarn yellow yoga youth zebra zip zoom zone above before mommy papa puppy
bumblebee hippopotamus peppermint impossible improvement
""".split()
_COMMON_WORDS = """
able across action actor advice afraid afternoon again age agree ahead air airport album alive allow
almost alone along already amount anchor angle animal ankle answer anxious anyone appear arch argue arm
army around arrow artist asleep ask aunt autumn avoid awake award aware away axe back bad badge bake
balance ball banana bank bargain bark barn basket bath bay beach bean beard beat become bed beef begin
behave behind belief belong below belt bend berry best better between beyond bike bill birth bite bitter
blame blank blend bless blind block blood bloom board body boil bold bolt bone bonus borrow boss bounce
bow bowl brain branch brand breathe breeze brick bride brief bring broad broom brush bucket budget build
bulb bundle burn burst bush busy butter button buy buzz cable cage cake calm camel camera candle canoe
capable car card care cargo carpet carrot cartoon case cash castle catch cause cave ceiling cell center
chain chair chalk chance change chapter charge charm chase cheap cheek cheese chef cherry chest chicken
chief chimney chin circle circus city claim clap clay clean clerk clever cliff clock cloth coach coal
coast coat coin cold collar color comb come comfort common cook cool copy corn corner cotton cough count
courage course court cousin crab crack cradle crane crash crawl cream creek crew crisp crowd crown cruel
crumb crush cry cup curb cure curl curtain curve customer cut dance danger dark daughter dawn day deal
dear debt decide deer degree delay deliver dentist depend desert desk detail device dial diamond different
dig dinner dirt discover dish ditch divide doll dolphin donkey double dough down dozen draft dragon draw
dream dress drift drill drink drive drop dry duck dull dust duty eagle earn earring east echo edge effort
eight either electric elephant else engine enjoy enough enter envelope equal escape evening event exact
exam example except excuse expect explain extra eye face fact fade faint fair faith fall false fame fan
fancy far fashion fast fault fear feather feed feel fence ferry fever fiction fierce fight fill final find
finger finish firm fist fit flag flame flash flat flavor flea flesh flight float flock flood floor flour
flow fly fold food fool foot force forest forget fork form fort forward found fox frame freedom freeze
friend frost fruit fuel full fun funny fur future gain game garage garlic gasp gather gentle germ ghost
giant gift ginger giraffe girl give glad glass globe glory glow glue gold golf good gossip grab grace
grain grand grape grave gray grease great greedy greet grief grill grin ground group grow guard guess
guide guitar gull gum gust habit hair half hall hammer hand handle hang happy harm harsh harvest hat hatch
hate hawk hay head heal healthy heap hear heart heat heel height hello hen herb hero hidden high hill hint
hip history hit hobby hold hole hollow honest hood hook horn horse hotel hour house hover hunger hurt
husband hut ice idle igloo ill inch injure ink insect inside invite iron island itch jail jar jaw jazz
jeans jelly jewel join joke jolly journey juice juicy jungle junior just keen kettle key kick kind king
kite kitten knee kneel knight knock knot know label labor lace ladder lady lake lantern large last late
laugh laundry lawn lawyer lazy lead leaf leak lean learn leave left leg lemon lend length less lesson
letter level lie lift like limb lime limit line lion lip list listen little live liver lizard load loaf
local lock lodge lone long look loose lose loss lost lot love low luck lump lunch lung magic magnet mail
main major make male mall manage mango manner marble mark marry mask mass mast master match meadow meal
mean meat medal media meet mellow melon melt memory mend mercy mess metal method mild mile mind mine mint
minute miracle mirror miss mist mistake model modern moment monkey month mood mop more morning mosquito
most motor mountain move much mud mug muscle mushroom mystery nail narrow nation nature navy near neat
neck need needle nerve nest net never new next nice night nine nod none noon north nose note nothing
notice novel now nurse nut oak ocean odd off offer office oil onion only orange orbit order organ other
otter ought ounce out oven owe owl own ox pace pack page pain paint pair palace pale pan panda panic
pardon parent park parrot part party pass past patch pause paw pea peace peach peak pear pearl pen pepper
perfect perhaps person phone photo piano pick picnic picture piece pigeon pile pill pillow pine pink pipe
pirate pit pitch pity pizza place plain planet plant plate play please plenty plot plow plug plus pocket
point poison polar pole police polite pond pony pool popular porch port potato pouch pour powder power
practice praise pray prefer present press pretty prey price pride prince print prison prize profit promise
proof proud public pull pulse pure purpose purse push puzzle quarter queen question quick quilt quite
quote rabbit race radar rage rail raise rake ranch range rapid rare rat rather raw razor reach read ready
real reason recipe red reef refuse regret relax rely remain remote rent repeat reply rescue rest result
return reward rhyme rib ribbon rich ride ridge right ring ripe rise risk rival road roar roast rob rocket
rod role roll roof root rope rose rotten rough round route row rub rude ruin rule run rush rust sack sad
saddle sail salad salmon salt same sand sauce save saw say scale scare scatter scene school science
scissors score scout scrap scream screen scrub sea search season seat second secret see seed seldom sell
send sense serve settle seven shade shadow shake shallow shame share shark sharp shed shelf shell shelter
shine shirt shock shop shore short shoulder shout shovel shower shrimp shrink shy sick side sigh sign
silent silk silver simple sing single sink sister size skate skill skin skirt skull sky sled sleeve slice
slide slight slip slope slow smart smash smell smile smoke snack snail snake sniff soap social sock sofa
soil soldier solid some son song soon sore sort sound sour south space spade spark speak special speed
spell spend spice spider spill spin spirit spit splash split spoil sponge sport spot spray spread spring
spy square squeeze squirrel stable staff stage stain stair stamp stand star stare start state stay steak
steal steam steel steep stem step stick stiff still sting stir stomach stone stool stop store storm story
stove straight strange straw stream street stretch strict strike string strong student stuff stumble style
sugar suit sun sure surf surprise swallow swan swear sweat sweet swim swing switch sword symbol table tail
take tale talk tall tame tan tap target task taste tax taxi teach team tear tease tell temple ten tennis
tent term test thank thick thin thing think thirsty thorn though thread threat three throat throne through
throw thunder ticket tide tie tiger tight tile timber time tin tip tire tired title toast today toe tongue
tool top torch total touch tough tour toward towel tower town toy trace track trade trail train trap
travel tray treat trial tribe trick trip troop trophy trouble truck true trumpet trunk trust truth try
tulip tuna tunnel turkey turn turtle twelve twig twin twist type uncle under unit until upper upset urban
use useful usual valley value van vanilla vase vast vegetable vein very vest victory video vine violin
virus visit vital volcano vote wagon waist wait wake walk wall wallet want war warm warn wash waste watch
water wax way weak wealth weapon wear week weigh weird well west wet whale wheat wheel whisper whistle
white whole wide wife wild will win wind wing winter wipe wire wish witch with wonder wood wool word work
worm worry worth wound wrap wreck wrist write wrong yard yawn year yell yes young zero zigzag
""".split()
# Sounds as English spells them. Every synthesiser reads a word that it does not know letter by letter.
_ONSETS = """
b bl br ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh shr sk sl sm sn sp spl spr st
str sw t th thr tr tw v w wh y z
""".split()
_NUCLEI = "a e i o u a e i o u ai ee oa oo ou oi ar er or aw ay ie ea".split()
_CODAS = """
b d f ft g ck l ld lk lm lp lt m mp n nd ng nk nt p pt rk rm rn s sh sk sp st t th v x z tch dge ss ll ff
be de fe ke le me ne pe ve ze
""".split()
_JOINTS = "a a a the the my our of and and in on by for with or to from at his her".split()
# fmt: on
_STRINGS = 0.6  # part of the sentences for training


def _choose(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(rng: np.random.Generator, heldout: bool = False) -> str:
    """One sentence. Held-out sentences are a disjoint fifth of the written ones and of the composed ones'
    parts, and have no invented words.
    """
    if not heldout and rng.random() < _STRINGS:
        return _string_of_words(rng)
    parts = {
        "subjects": _SUBJECTS,
        "verbs": _VERBS,
        "objects": _OBJECTS,
        "places": _PLACES,
        "written": _SENTENCES,
    }
    for name, options in parts.items():
        parts[name] = [option for index, option in enumerate(options) if (index % 5 == 4) == heldout]
    kind = rng.random()
    if kind < 0.35:
        return _choose(rng, parts["written"])
    if kind < 0.80:
        words = [_choose(rng, parts[name]) for name in ("subjects", "verbs", "objects")]
        if rng.random() < 0.7:
            words.append(_choose(rng, parts["places"]))
        if rng.random() < 0.3:
            words.insert(0, _choose(rng, _OPENINGS) + ",")
        text = " ".join(words)
        return text[0].upper() + text[1:] + _choose(rng, [".", ".", ".", "!", "?"])
    words = [_choose(rng, _WORDS) for _ in range(int(rng.integers(4, 10)))]
    return " ".join(words) + "."


def invented_word(rng: np.random.Generator) -> str:
    """One to three syllables that English could have, and almost never has."""
    syllables = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    letters = ""
    for number in range(syllables):
        if number or rng.random() < 0.9:
            letters += _choose(rng, _ONSETS)
        letters += _choose(rng, _NUCLEI)
        if number + 1 == syllables and rng.random() < 0.8:
            letters += _choose(rng, _CODAS)
    return letters


def _string_of_words(rng: np.random.Generator) -> str:
    """Common and invented words, with small words and pauses between them as in a sentence."""
    text = ""
    for _ in range(int(rng.integers(3, 9))):
        if text and rng.random() < 0.15:
            text += ","
        if rng.random() < 0.4:
            text += f" {_choose(rng, _JOINTS)}"
        text += f" {invented_word(rng) if rng.random() < 0.45 else _choose(rng, _COMMON_WORDS)}"
    text = text.strip()
    return text[0].upper() + text[1:] + _choose(rng, [".", ".", ".", "!", "?"])


def passage(rng: np.random.Generator, words: int, heldout: bool = False) -> str:
    """Sentences until there are at least ``words`` words."""
    sentences = [sentence(rng, heldout)]
    while sum(len(text.split()) for text in sentences) < words:
        sentences.append(sentence(rng, heldout))
    return " ".join(sentences)
