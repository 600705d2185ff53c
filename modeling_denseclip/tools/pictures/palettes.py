# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The colours of classes."""

from itertools import product


# Colours in hexadecimal, each as different as can be from all before it, as tests/fixtures/make_palettes.py chooses
# them. As a table they are the same on all machines.
FAR_APART = bytes.fromhex("""
    0072b2 ffe100 c30000 00ffff ffc3ff 008700 b42dc3 a5875a 78e14b 87c3ff ff6987 00a5a5 8787ff ffc3a5 965a69 ff8700
    ff69ff 87a500 785a00 0f5ae1 d2f0c3 5a693c 87b487 007869 786996 e10078 c387b4 00ffa5 d2a500 c3694b c3c378 00b43c
    3c96f0 d2f05a 0f96c3 4bd2f0 787800 00d2b4 d29687 b4b4ff ff1e3c 5a875a 964b2d 784ba5 b469e1 ffe196 f02dc3 ffa5c3
    a56900 9696c3 d296ff 96e1d2 ffb45a 87965a 006987 b45a96 3c78e1 b42d4b f05a00 ff8769 b40087 3ca578 d2b487 96694b
    a5962d 69d287 c3c300 785af0 008796 ff78c3 96c35a c36978 c3872d 5a8700 1eb4f0 c34b00 00783c c3a5d2 6987b4 69a53c
    78693c 96ff96 3c694b 874b78 e1c35a 4b5aa5 8778c3 a5d200 a5d296 78a5d2 ff96f0 f04b96 5ab4c3 e1e1a5 ffc300 5a6900
    96f0ff 5ac30f e1965a a5ff5a 967800 c34b4b d269c3 00964b ffa596 00d24b 965aa5 78c3b4 4b782d d28796 b4e178 87a5f0
    78f0c3 d20fa5 b4a569 5a6996 3cf069 ff0069 b487d2 873cd2 a5b487 0069c3 00c387 a53c69 963c96 f0695a 0fc3c3 e1e13c
    d2a55a 1e87c3 4be1e1 e10f1e a5b44b e1960f 6969d2 e1004b 87873c 6978b4 a578a5 b47869 4b9687 c3690f d278ff e1783c
    965a1e a55a4b 78d2ff e1a5d2 78784b d24be1 c3d25a c3875a b4d2ff a5f0b4 69b469 a54be1 1e875a e15a69 2da5f0 c34b78
    ff87a5 5a4bd2 69782d 2da500 4b963c a596e1 e1c3f0 78b40f 78690f 5aa5c3 00e196 a56987 f0c387 e187d2 ffc3e1 7887d2
    964b4b 5a78ff 6996ff c30069 e14b2d b43c2d 5ab496 d26996 3c692d a500b4 e1b4ff 78962d 96e187 a5783c 0078a5 9669c3
    c3b44b a56969 e1f096 f08787 0069ff c34bb4 c3d296 ff5ad2 9669ff a54b00 b487ff b43c87 ffa569 d27869 a5a500 695ab4
    d2a587 ffa500 96e12d 4b785a e196b4 695a87 009678 87d2a5 b47887 87783c 5a69b4 b4f0d2 e1d287 965a87 ffe169 7896d2
    00ffd2 3c96a5 788700 875a3c c3f0a5 3c78c3 69692d 78a569 2d87a5 5a96c3 c3002d 785a2d 2d8778 9678e1 3cc369 c3a5f0
    d24b96 78875a 96b4e1 e1c300 69873c b4964b b469b4 b4c3ff e1872d 3ca55a 1e6996 1e781e 2d873c e1e178 5a784b 78c35a
""")
FAR_APART_TO_COLOR_BLIND = bytes.fromhex("""
    e69f00 5a1ee1 4be1ff 962d2d 877896 e1f0c3 6978ff e14b5a 694b69 b4b496 ffe15a 96c3c3 695aa5 876900 9696d2 c3f0f0
    b48787 a54b5a 694bff c3780f d2b469 3c5a3c 7878c3 c3d2a5 b496b4 693ca5 78b4ff f0784b e1e196 6996ff 87783c 785a78
    874b00 96a569 a56978 96e1d2 f0c300 784b5a 5a4bd2 78b4a5 b4b4e1 786996 c3e1c3 8787b4 d23c1e 875ae1 c30078 4b5a87
    968769 a5f0ff 78d2b4 695ac3 c39696 d28700 c34b69 ff8787 b40f3c 699696 d2c387 ff004b a5a5d2 c3d25a c37896 87ffe1
    a52d5a ff2dc3 a57878 3c2dff a578e1 008787 ffc3d2 f0f00f a53cb4 e1f087 781ec3 c35a87 963c96 d2e1b4 87c33c b4c3e1
    a5e178 9669e1 78784b d296f0 00e196 4bb44b f0c3ff a5004b ffa5b4 96d2c3 785aff b43c69 783cc3 ff0fa5 e178e1 6987ff
    78c3b4 962d69 00d2a5 69a578 a5a587 d20f2d a52d87 5a87a5 b4e1e1 87873c 5aff69 966969 961ed2 784b78 96785a 5a96a5
    962df0 d296a5 e1a578 5a782d 0f6996 e15a69 005ae1 3c5a96 a55a5a 964b4b b4e13c e1d2f0 d2f0d2 00b4b4 f0b4f0 96a5c3
    87a52d 0f96c3 b4a55a 00a5c3 e1b45a b44bb4 a5b487 f00000 f05aa5 00c378 873c3c a5ffa5 872de1 694ba5 ff96a5 b4782d
    f03cff 00f0e1 5af087 69965a 5a3cb4 873cb4 69691e 78d2f0 5a78d2 b44b87 785ad2 78c3ff c38778 e13cd2 69874b f0872d
    c3b4d2 78693c b40f96 a5965a 4b693c 2dc3c3 96f0a5 69a5e1 2d2df0 f0d287 b4d278 4b5a2d b42d4b c3a5c3 8796b4 d24b2d
    9678d2 00784b 964bf0 ffb496 7869a5 9696f0 d21ed2 0f871e 875a5a 4b7887 4b7800 1e690f c34bf0 e18769 a5b44b 78e1c3
    a578f0 d2c34b a58778 5afff0 a53cc3 781ed2 f0b4d2 961ec3 d2d2b4 7896e1 e11e69 c3f0b4 784b87 a587a5 0087c3 6978a5
    c3c378 2d5a5a 2dc300 96ffc3 c3a569 00e1d2 4b6987 e1d269 69b45a 96b4d2 873ce1 785a2d a587d2 a5c31e d2a5f0 b4872d
    a5871e d2f096 1e78a5 3c873c c34b2d 96c3a5 8787c3 e16969 a51e5a 3c9669 96d287 4ba569 f04b96 c369b4 0ff000 00d25a
    787800 a5784b f0f078 5a8778 87a5ff 782df0 f00096 960fb4 87b4b4 4b5a78 a5f0e1 96964b a55a78 2db43c d2a5d2 4b69b4
""")


def generate_palette(num_labels: int) -> list[tuple[int, int, int]]:
    """
    Choose one RGB colour in [0, 255] per class: each as different as can be from all before it, so that the colour of
    a class does not depend on how many classes follow it.

    None is near black, white or grey. The smallest difference between two of them (CIEDE2000) is 25 for 11 classes,
    17 for 19, 11 for 40 and 5 for 150; the last of these are hard to tell apart without a legend. From the 257th on
    they are only known to differ.
    """
    return _first_colors(FAR_APART, num_labels)


def color_blind_palette(num_labels: int) -> list[tuple[int, int, int]]:
    """
    As [`generate_palette`], with colours that also differ for people who lack one kind of cone: long waves (protan),
    middle (deutan) or short (tritan).

    The smallest difference between two of them (CIEDE2000), to the eye that tells them apart worst, is 34 for 4
    classes, 19 for 6, 14 for 8, 12 for 12 and less than 8 from 13 on. So trust it up to 12 classes; with more, read
    the boundaries and the legend too. (The first 8 of Okabe and Ito, without black, come to 8.)
    """
    return _first_colors(FAR_APART_TO_COLOR_BLIND, num_labels)


def _first_colors(table: bytes, num_labels: int) -> list[tuple[int, int, int]]:
    colors = [tuple(table[start : start + 3]) for start in range(0, len(table), 3)]
    if num_labels > len(colors):
        others = [color for color in product(range(0, 256, 15), repeat=3) if max(color) - min(color) > 90]
        others = [color for color in others if color not in colors]
        # Steps of a large prime, so that colours that follow one another are not neighbours.
        colors += [others[1009 * index % len(others)] for index in range(num_labels - len(colors))]
    return colors[:num_labels]
