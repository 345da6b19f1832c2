"""Which TensorRT is found usable, and what is said where none is."""

from __future__ import annotations

import sys
import types

import pytest

from edgepin._errors import EnvironmentFault
from edgepin._runtime import tensorrt_api as api

from .engine_fakes import FakeTensorRT

NAMES = ("tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx")


@pytest.fixture
def install(monkeypatch):
    """Puts modules into the places of TensorRT's; without one, there is none."""

    def put(**modules):
        for name in NAMES:
            monkeypatch.setitem(sys.modules, name, modules.get(name))
        api.load_tensorrt.cache_clear()

    yield put
    api.load_tensorrt.cache_clear()


@pytest.mark.parametrize("version", ["10.3.0", "10.3.0.26", "10.16.2", "11.4.1"])
def test_10_3_to_11_are_taken(install, version):
    install(tensorrt=FakeTensorRT(version).module)
    found = api.load_tensorrt()
    assert (found.flavor, found.version, found.title) == ("tensorrt", version, f"TensorRT {version}")
    assert found.capabilities == ()


def test_tensorrt_for_rtx_is_taken_where_there_is_no_other(install):
    install(tensorrt_rtx=FakeTensorRT("1.7.1.116", rtx=True).module)
    found = api.load_tensorrt()
    assert (found.flavor, found.title) == ("tensorrt-rtx", "TensorRT for RTX 1.7.1.116")
    assert found.capabilities == ("sm_86", "sm_120")


def test_tensorrt_goes_before_tensorrt_for_rtx(install):
    install(tensorrt=FakeTensorRT().module, tensorrt_rtx=FakeTensorRT("1.7.1.116", rtx=True).module)
    assert api.load_tensorrt().flavor == "tensorrt"


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.1", "10.2.0", "10.0.1"])
def test_older_ones_are_refused_with_reason_and_remedy(install, version):
    install(tensorrt=FakeTensorRT(version).module)
    with pytest.raises(EnvironmentFault, match=rf"is version {version}, and 10\.3 is needed") as refusal:
        api.load_tensorrt()
    assert "JetPack 6.1" in refusal.value.hint


def test_an_old_tensorrt_does_not_hide_a_usable_one(install):
    install(
        tensorrt=FakeTensorRT("8.6.1").module,
        tensorrt_rtx_bindings=FakeTensorRT("1.7.1.116", rtx=True).module,
    )
    assert api.load_tensorrt().flavor == "tensorrt-rtx"


def test_none_is_said_with_how_to_get_it(install):
    install()
    with pytest.raises(EnvironmentFault, match="not installed") as refusal:
        api.load_tensorrt()
    assert "edgepin[tensorrt]" in refusal.value.hint


def test_one_that_lacks_an_attribute_is_refused_by_its_name(install):
    module = FakeTensorRT().module
    del module.MemoryPoolType
    install(tensorrt=module)
    with pytest.raises(EnvironmentFault, match=r"10\.3\.0 lacks MemoryPoolType\.WORKSPACE"):
        api.load_tensorrt()


def test_10_needs_the_strongly_typed_flag_and_11_does_not(install):
    install(tensorrt=FakeTensorRT("10.3.0", typed_flag=False).module)
    with pytest.raises(EnvironmentFault, match="STRONGLY_TYPED"):
        api.load_tensorrt()
    install(tensorrt=FakeTensorRT("11.4.1", typed_flag=False).module)
    assert api.load_tensorrt().version == "11.4.1"


def test_one_that_does_not_say_its_version_is_refused(install):
    install(tensorrt=types.ModuleType("tensorrt"))
    with pytest.raises(EnvironmentFault, match="does not say its version"):
        api.load_tensorrt()


def test_one_whose_libraries_are_missing_is_said(install, monkeypatch):
    install()

    def load(name):
        if name == "tensorrt":
            raise FileNotFoundError("Could not find: libnvinfer.so.10\nand more")
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(api.importlib, "import_module", load)
    with pytest.raises(
        EnvironmentFault, match=r"tensorrt does not import: Could not find: libnvinfer\.so\.10$"
    ):
        api.load_tensorrt()


def test_the_tables_name_everything_that_the_builder_uses():
    """The builder's tests run on the imitation, which has what is in the tables and nothing else."""
    module = FakeTensorRT("1.7.1.116", rtx=True).module
    offered = {
        f"{name}.{attribute}"
        for name, value in vars(module).items()
        if not name.startswith("_")
        for attribute in (getattr(value, "__members__", None) or vars(value))
        if not attribute.startswith("_")
    }
    unused = {"ComputeCapability.NONE", "ComputeCapability.SM86", "ComputeCapability.SM120", "DeviceType.GPU"}
    unused |= {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}
    assert offered - unused <= {*api.BUILDER_ATTRIBUTES, *api.OPTIONAL_ATTRIBUTES}
    assert set(api.BUILDER_ATTRIBUTES) <= offered


def test_the_log_keeps_errors_and_warnings_and_no_noise():
    log = FakeTensorRT().tensorrt().log
    with log.listen() as outer:
        log.logger.log("VERBOSE", "noise")
        log.logger.log("INFO", "noise")
        with log.listen() as inner:
            log.logger.log("ERROR", "broken")
        log.logger.log("WARNING", "careful")
    log.logger.log("ERROR", "later")
    assert [message.text for message in outer] == ["broken", "careful"]
    assert [message.text for message in inner] == ["broken"]
    assert [message.text for message in log.recent] == ["broken", "careful", "later"]
    assert [message.is_error for message in log.recent] == [True, False, True]


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    from edgepin_kernels import _cuda_driver

    def missing(library=None):
        raise _cuda_driver.CudaUnavailableError("the CUDA driver is not here")

    monkeypatch.setattr(_cuda_driver, "Driver", missing)
    with pytest.raises(EnvironmentFault, match="there is no GPU to use: the CUDA driver is not here"):
        api.this_gpu()


def test_a_gpu_is_named_with_its_capability(monkeypatch):
    from edgepin_kernels import _cuda_driver

    class Driver:
        def device(self, index):
            return index

        def compute_capability(self, device):
            return 8, 7

        def device_name(self, device):
            return "Orin (nvgpu)"

    monkeypatch.setattr(_cuda_driver, "Driver", Driver)
    assert api.this_gpu() == api.Gpu("Orin (nvgpu)", "sm_87")
