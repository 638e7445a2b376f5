// onnxruntime-web as npm installs it beside this page; see README.md
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const input = document.getElementById("photograph");
const status = document.getElementById("status");
const canvas = document.getElementById("result");
const context = canvas.getContext("2d", { willReadFrequently: true });

// threads need a page that is served with COOP and COEP headers
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;

async function brighten(session, file) {
  const bitmap = await createImageBitmap(file);
  const { width, height } = bitmap;
  canvas.width = width;
  canvas.height = height;
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  // a canvas has four channels, the network takes three: bytes, [1, height, width, 3]
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = pixels.data[from];
    rgb[to + 1] = pixels.data[from + 1];
    rgb[to + 2] = pixels.data[from + 2];
  }
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const { enhanced } = await session.run({ image });
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    pixels.data[to] = enhanced.data[from];
    pixels.data[to + 1] = enhanced.data[from + 1];
    pixels.data[to + 2] = enhanced.data[from + 2];
  }
  context.putImageData(pixels, 0, 0);
  enhanced.dispose();
}

try {
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  status.textContent = "Choose a dark photograph";
  input.disabled = false;
  input.addEventListener("change", async () => {
    if (!input.files.length) return;
    input.disabled = true;
    status.textContent = "Working";
    const start = performance.now();
    try {
      await brighten(session, input.files[0]);
      status.textContent = `Done in ${Math.round(performance.now() - start)} ms`;
    } catch (error) {
      status.textContent = `This did not work: ${error.message}`;
    } finally {
      input.disabled = false;
    }
  });
} catch (error) {
  status.textContent = `The network could not be loaded: ${error.message}`;
}
