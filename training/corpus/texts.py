"""What the corpus says: own short sentences, composed ones, and strings of words for rare sound sequences."""

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
# fmt: on


def _choose(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(rng: np.random.Generator, heldout: bool = False) -> str:
    """One sentence. Held-out sentences are a disjoint fifth of the written ones and of the composed ones'
    parts.
    """
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


def passage(rng: np.random.Generator, words: int, heldout: bool = False) -> str:
    """Sentences until there are at least ``words`` words."""
    sentences = [sentence(rng, heldout)]
    while sum(len(text.split()) for text in sentences) < words:
        sentences.append(sentence(rng, heldout))
    return " ".join(sentences)
