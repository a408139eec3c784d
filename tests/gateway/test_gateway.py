def test_smoke(gateway):
    assert gateway.url
