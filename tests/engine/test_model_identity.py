"""What a checkpoint remembers of a model: its shape and vocabulary, not its weights."""

from qredit.engine.model_identity import describe_model


class Vocabulary(dict):
    def get_vocab(self):
        return dict(self)


CONFIG = {"model_type": "qwen3", "vocab_size": 7, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_shape_and_vocabulary_tell_models_apart():
    own = describe_model(CONFIG, Vocabulary(a=0, b=1))
    assert own["model"].startswith("model_type qwen3, vocab_size 7, hidden_size 4")
    assert own == describe_model({**CONFIG, "use_cache": False}, Vocabulary(b=1, a=0))
    assert own["model"] != describe_model({**CONFIG, "hidden_size": 8}, Vocabulary())["model"]
    assert own["tokenizer"] != describe_model(CONFIG, Vocabulary(a=1, b=0))["tokenizer"]


def test_a_model_of_images_too_has_the_shape_of_its_texts():
    assert describe_model({"model_type": "both", "text_config": CONFIG}, Vocabulary()) == describe_model(
        CONFIG, Vocabulary()
    )
