// Classifies a picture with transformers.js: node transformers_js.mjs FOLDER NAME PICTURE prints labels and scores.
import { env, pipeline } from "@huggingface/transformers";

const [folder, name, picture] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const classify = await pipeline("image-classification", name, { dtype: "fp32" });
console.log(JSON.stringify(await classify(picture, { top_k: null })));
