"""Runs untrusted pickles safely: they are interpreted here, not by the module `pickle`.

A pickle is a program for a small stack machine, which can import and call anything by name. The machine in this file
knows only the instructions for containers, numbers and strings, and only the names that the caller allows. A pickle can
change only objects that it made itself. It cannot set attributes, and keys of dicts must be quick to hash.
"""

import pickletools

from keras_cnv2.errors import CheckpointError

# In bytes. An instruction of one byte can build an object of a hundred bytes, so the length bounds memory and time.
# The longest pickle of a ConvNeXt V2, including the state of its training, has a twentieth of this length.
LIMIT = 1 << 22

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def run_pickle(file, names=None, load=None):
    """Runs a pickle and returns the object that it builds.

    Args:
        file: Binary file, at most `LIMIT` bytes. Its position is moved to the end of the pickle.
        names: Dict from the names that the pickle may use, "module.name", to the objects they stand for.
        load: Function that takes a persistent ID, and returns the object outside of the pickle that it stands for.

    Raises:
        CheckpointError: If the pickle asks for any other name.
        ValueError: If it holds anything else that is not allowed.
    """
    names, memo, stacks = names or {}, {}, [[]]
    for instruction, argument, _ in pickletools.genops(file):
        stack = stacks[-1]
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE" as name:
                stack.append(CONSTANTS[name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                stacks.append([])
            case "TUPLE":
                stacks.pop()
                stacks[-1].append(tuple(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple([stack.pop() for _ in range(TUPLES[name])][::-1]))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                stacks.pop()
                stacks[-1][-1].extend(stack)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                stacks.pop()
                _set_items(stacks[-1][-1], stack)
            case "GLOBAL":
                stack.append(_find(names, argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise ValueError("a name is no string")
                stack.append(_find(names, f"{module}.{name}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(function(*arguments))
            case "BUILD":
                stack.pop()  # attributes of a Namespace or of a state dict, which are not needed
            case "BINPERSID":
                stack.append(load(stack.pop()))
            case name:
                raise ValueError(f"unknown instruction {name} {argument}")


def _find(names, name):
    if name not in names:
        raise CheckpointError(
            f"the file asks for {name[:100]}, which no checkpoint needs and which may do harm; nothing of it was run. "
            "Only tensors, containers, numbers, strings and argparse.Namespace are read. If you trust the file, "
            "load it with PyTorch and save its state dict alone."
        )
    return names[name]


def _set_items(target, items):
    """Puts a list of alternating keys and values into a dict."""
    if type(target) is not dict or len(items) % 2:
        raise ValueError("items are set on an object that is not a dict")
    for key, value in zip(items[::2], items[1::2]):
        # Hashing nested tuples can take very long, and large ints can be chosen to collide.
        if not isinstance(key, str) and not (type(key) is int and 0 <= key < 1 << 32):
            raise ValueError(f"a key of a dict is of the type {type(key).__name__}")
        target[key] = value
